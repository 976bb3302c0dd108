//! Starts a release in a sandbox, where it has still to prove itself.

use super::environment::{surroundings, with_port};
use super::instance::Instance;
use super::launched::Launched;
use super::ports::is_free;
use super::tcp_sockets::{Socket, listeners};
use super::tools::Tools;
use crate::disk::layout::{StartSpec, TOOLS_INSIDE};
use crate::journal::HALF_APP_LOG;
use crate::model::{AnyError, DeployId, EnvName, FixedPort, HostSocket, ProcessId, Secret, failed};
use crate::sandbox::bwrap::{Purpose, Sandbox};
use crate::sandbox::host::Host;
use crate::sandbox::limits::Limits;
use crate::sandbox::port_range::RANGE;
use crate::store::App;
use std::path::{Path, PathBuf};

/// The port for the process of an app that requests go to: its own, or a fresh one.
///
/// # Errors
/// When another program has it, or none is free.
pub fn port_of(tools: &Tools, app: &App) -> Result<u16, AnyError> {
    match app.settings.port.map(FixedPort::get) {
        Some(port) if is_free(port) => Ok(port),
        Some(port) => {
            let what =
                "which its settings name, is taken: stop the program that has it, or set another";
            Err(format!("port {port}, {what}").into())
        }
        None => fresh_port(tools),
    }
}

/// Starts a process of a release in its sandbox, on this port if it has one, with the environment
/// opened at this moment. `deploy` is the one that has made the release the live one, or will.
///
/// # Errors
/// The sentence that says why not: a value that does not open, a program that
/// is gone, a release that is gone.
pub fn launch(
    tools: &Tools,
    app: &App,
    (deploy, release): (&DeployId, &DeployId),
    id: &ProcessId,
    port: Option<u16>,
) -> Result<Launched, AnyError> {
    let Tools { store, journal, layout, .. } = tools;
    let host = tools.host.wait()?;
    let spec = layout.start_spec(&app.id, release).ok_or("its files are gone; deploy again")?;
    let command = if id.is_web() { spec.start.as_ref() } else { spec.processes.get(&id.name) };
    let command = command.ok_or("its release has no such process; deploy again")?;
    // First: what is saved in between counts as not live, though it may be.
    let marks = Some(store.env_marks(&app.id)?);
    let env = store.env_clear(&app.id)?;
    let log = journal.app_log_files(&app.id).map_err(failed("the app's log cannot be written"))?;
    layout.prepare_exits(&app.id).map_err(failed("the app's directory cannot be written"))?;
    journal.note_app(&app.id, &mark(id, deploy));
    let mut sandbox = app_sandbox(tools, (&host, Purpose::Run), app, &spec, release, env)?;
    if let Some(port) = port {
        sandbox = with_port(sandbox, port);
    }
    sandbox.exit_file = Some(layout.exit_file(id, port));
    (sandbox.log, sandbox.label) = (Some(HALF_APP_LOG), id.label());
    let instance = Instance::start(&sandbox, command, &log)?;
    Ok(Launched { id: id.clone(), deploy: deploy.clone(), port, env: marks, instance })
}

/// How the live release of an app is started; `None` when there is none.
pub fn live_spec(Tools { layout, .. }: &Tools, app: &App) -> Option<StartSpec> {
    layout.start_spec(&app.id, app.live_release.as_ref()?)
}

/// The processes without a port that an app should have of a release, with their commands.
pub fn workers_of<'a>(app: &App, spec: &'a StartSpec) -> Vec<(ProcessId, &'a str)> {
    let mut all = Vec::new();
    for (name, command) in &spec.processes {
        let id = |number| ProcessId { app: app.id.clone(), name: name.clone(), number };
        all.extend((1..=app.settings.scale_of(name)).map(|number| (id(number), command.as_str())));
    }
    all
}

/// The sandbox in which a release of an app runs, and what else runs in its place.
///
/// # Errors
/// When the sockets that its owner named are not there, or are not for apps.
pub fn app_sandbox<'a>(
    Tools { layout, .. }: &Tools,
    (host, purpose): (&'a Host, Purpose),
    app: &App,
    spec: &StartSpec,
    release: &DeployId,
    env: Vec<(EnvName, Secret, bool)>,
) -> Result<Sandbox<'a>, AnyError> {
    let mut sandbox = surroundings(host, purpose, app.slot, spec, env)
        .bind(&layout.release(&app.id, release), "/app")
        .bind(&layout.persistent(&app.id), "/data");
    sandbox.shown = Some((layout.tools(), TOOLS_INSIDE)).filter(|(tools, _)| tools.is_dir());
    sandbox.limits = Limits::of_app(app, host.memory);
    sandbox.sockets = sockets(app, &layout.apps())?;
    Ok(sandbox)
}

/// A port of those that are given out, which no app may listen at unless it is given it.
///
/// # Errors
/// When none is free, with who has them.
pub fn fresh_port(Tools { store, host, ports, .. }: &Tools) -> Result<u16, AnyError> {
    let apps = store.shared_apps()?;
    let taken: Vec<u16> = apps.iter().filter_map(|app| Some(app.process.as_ref()?.port)).collect();
    let host = host.wait()?;
    ports.fresh(&taken).map_err(|e| format!("{e}{}", who_has_ports(&apps, &host)).into())
}

/// Who has the most of the ports that apps are given, as the end of a sentence.
fn who_has_ports(apps: &[App], host: &Host) -> String {
    let all = listeners();
    let of = |app: &App| {
        let uid = host.users.outside_uid(app.slot);
        let is_theirs = |l: &&Socket| RANGE.contains(&l.address.port()) && Some(l.uid) == uid;
        all.iter().filter(is_theirs).count()
    };
    match apps.iter().map(|app| (of(app), app.name.as_str())).max() {
        Some((count, name)) if count > 1 => {
            format!("; the app {name} listens at {count} of them: stop it")
        }
        _ => String::new(),
    }
}

/// The directories of sockets that the owner named. A link among them must not lead out
/// of `/run`, nor to where the data is.
fn sockets(app: &App, data: &Path) -> Result<Vec<PathBuf>, String> {
    let named = app.settings.host_sockets.iter().map(|socket| {
        let named = socket.as_str();
        let real = Path::new(named).canonicalize().ok().filter(|path| path.is_dir());
        let real = real.ok_or_else(|| {
            format!("{named} is not there; is the service whose sockets it holds running?")
        })?;
        if may_be_shown(&real, data) {
            Ok(real)
        } else {
            Err(format!("{named} leads to where no app may look"))
        }
    });
    named.collect()
}

/// Whether a directory, all links followed, holds sockets of the machine and nothing of
/// ours; `data` is where the apps are, inside the data directory.
fn may_be_shown(real: &Path, data: &Path) -> bool {
    let plain = real.to_str().is_some_and(|path| HostSocket::parse(path).is_ok());
    plain && !data.starts_with(real) && !data.parent().is_some_and(|all| real.starts_with(all))
}

/// The line in an app's log where a process of a release begins.
pub fn mark(id: &ProcessId, deploy: &DeployId) -> String {
    if id.is_web() {
        format!("Starting release {deploy}.")
    } else {
        format!("{}Starting.", id.label())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_the_machine_an_app_sees_sockets_and_never_the_data_directory() {
        let shown = |real: &str, data: &str| may_be_shown(Path::new(real), Path::new(data));
        assert!(shown("/run/postgresql", "/var/lib/paas/apps"));
        assert!(shown("/run/postgresql", "/run/paas/apps"));
        for elsewhere in ["/", "/etc", "/run", "/tmp/x", "/run/systemd", "/run/user/0"] {
            assert!(!shown(elsewhere, "/var/lib/paas/apps"), "{elsewhere}");
        }
        for ours in ["/run/paas", "/run/paas/apps", "/run/paas/apps/a", "/run/paas/router"] {
            assert!(!shown(ours, "/run/paas/apps"), "{ours}");
        }
        assert!(!shown("/run/all", "/run/all/paas/apps"), "it is below");
    }
}
