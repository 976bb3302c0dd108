//! Starts a release, and the surroundings that builds and apps find.

use super::instance::Instance;
use super::tcp_sockets::{RANGE, listeners};
use crate::deploy::Shared;
use crate::disk::layout::Recipe;
use crate::journal::HALF_APP_LOG;
use crate::model::{DeployId, EnvName, HostSocket, Secret};
use crate::sandbox::bwrap::{Purpose, Sandbox};
use crate::sandbox::host::Machine;
use crate::sandbox::limits::Limits;
use crate::sandbox::proxy_env;
use crate::store::{App, Process};
use std::path::Path;

/// A release that was started and has not proved itself yet. Dropped, it ends:
/// whatever stops a deploy leaves nothing running.
#[derive(Debug)]
pub struct Launched {
    instance: Option<Instance>,
    process: Process,
}

impl Launched {
    /// What the database remembers of it.
    pub const fn process(&self) -> &Process {
        &self.process
    }

    /// Its process, still on probation.
    pub const fn instance(&mut self) -> Option<&mut Instance> {
        self.instance.as_mut()
    }

    /// Lets it live on.
    pub fn keep(mut self) -> Option<Instance> {
        self.instance.take()
    }
}

impl Drop for Launched {
    fn drop(&mut self) {
        if let Some(mut instance) = self.instance.take()
            && !instance.end()
        {
            log::warn!("process {} was killed and does not go", self.process.pid);
        }
    }
}

impl Shared {
    /// Starts the release of a deploy, its own or an earlier one, on a fresh port, with the environment opened at this moment.
    ///
    /// # Errors
    /// The sentence that says why not: a value that does not open, a program that
    /// is gone, a release that is gone.
    pub fn launch(
        &self,
        app: &App,
        deploy: &DeployId,
        release: &DeployId,
    ) -> Result<Launched, String> {
        let machine = self.machine()?;
        let recipe =
            self.places.recipe(&app.id, release).ok_or("its files are gone; deploy again")?;
        let start = recipe.start.as_deref().ok_or("it is a static site, which has no process")?;
        let env = self.store.env_clear(&app.id).map_err(|e| e.to_string())?;
        let log = self.journal.app_log_files(&app.id);
        let log = log.map_err(|e| format!("the app's log cannot be written: {e}"))?;
        let port =
            self.ports.fresh().map_err(|e| format!("{e}{}", self.who_has_ports(&machine)))?;
        let exits = self.places.prepare_exits(&app.id);
        exits.map_err(|e| format!("the app's directory cannot be written: {e}"))?;
        self.journal.note_app(&app.id, &mark(deploy));
        let sandbox = for_app(&machine, app.slot, &recipe, env)
            .bind(&self.places.release(&app.id, release), "/app")
            .bind(&self.places.persistent(&app.id), "/data")
            .port(port)
            .log(HALF_APP_LOG)
            .limits(Limits::of_app(app, &machine))
            .exit_to(self.places.exit_file(&app.id, port));
        let sandbox = with_sockets(sandbox, app, self.places.apps().as_path())?;
        let instance = Instance::start(&sandbox, start, &log).map_err(|e| e.to_string())?;
        let process = Process {
            deploy: deploy.clone(),
            pid: instance.pid(),
            start_ticks: instance.start_ticks(),
            port,
            ended: None,
        };
        Ok(Launched { instance: Some(instance), process })
    }
}

impl Shared {
    /// Who has the most of the ports that apps are given, as the end of a sentence.
    fn who_has_ports(&self, machine: &Machine) -> String {
        let all = listeners();
        let of = |app: &App| {
            let uid = machine.outside_uid(app.slot);
            let theirs =
                all.iter().filter(|l| RANGE.contains(&l.address.port()) && Some(l.uid) == uid);
            theirs.count()
        };
        let most = self.store.apps().unwrap_or_default().into_iter().max_by_key(of);
        match most.map(|app| (of(&app), app)) {
            Some((count, app)) if count > 1 => {
                format!("; the app {} listens at {count} of them: stop it", app.name.as_str())
            }
            _ => String::new(),
        }
    }
}

/// The directories of sockets that the owner named. A link among them must not lead out
/// of `/run`, nor to where the data is.
fn with_sockets<'a>(
    mut sandbox: Sandbox<'a>,
    app: &App,
    data: &Path,
) -> Result<Sandbox<'a>, String> {
    for named in &app.settings.host_sockets {
        let named = named.as_str();
        let real = Path::new(named).canonicalize().ok().filter(|path| path.is_dir());
        let real = real.ok_or_else(|| {
            format!("{named} is not there; is the service whose sockets it holds running?")
        })?;
        if !may_be_shown(&real, data) {
            return Err(format!("{named} leads to where no app may look"));
        }
        sandbox = sandbox.sockets(real);
    }
    Ok(sandbox)
}

/// Whether a directory, all links followed, holds sockets of the machine and nothing of
/// ours; `data` is where the apps are, inside the data directory.
fn may_be_shown(real: &Path, data: &Path) -> bool {
    let plain = real.to_str().is_some_and(|path| HostSocket::parse(path).is_ok());
    plain && !data.starts_with(real) && !data.parent().is_some_and(|all| real.starts_with(all))
}

/// The line in an app's log where a process of a release begins.
pub fn mark(deploy: &DeployId) -> String {
    format!("Starting release {deploy}.")
}

/// The sandbox of an app, but for its port and directories. What the owner sets wins.
fn for_app<'a>(
    machine: &'a Machine,
    slot: u16,
    recipe: &Recipe,
    env: Vec<(EnvName, Secret, bool)>,
) -> Sandbox<'a> {
    let mut sandbox = surroundings(Sandbox::new(machine, Purpose::Run, slot), &recipe.root)
        .env("HOME", "/tmp")
        .env("HOST", "127.0.0.1")
        .env("NODE_ENV", "production")
        // Otherwise Python keeps what an app prints until there are 8 KiB of it.
        .env("PYTHONUNBUFFERED", "1");
    for (name, value, _) in env {
        sandbox = sandbox.secret_env(name.as_str(), value);
    }
    sandbox
}

/// The sandbox of a build, but for its directories. What the owner sets wins.
pub fn for_build<'a>(
    machine: &'a Machine,
    slot: u16,
    root: &str,
    env: Vec<(EnvName, Secret, bool)>,
) -> Sandbox<'a> {
    let mut sandbox = surroundings(Sandbox::new(machine, Purpose::Build, slot), root);
    for (name, value) in BUILD_VARIABLES {
        sandbox = sandbox.env(name, value);
    }
    for (name, value, _) in env {
        sandbox = sandbox.secret_env(name.as_str(), value);
    }
    sandbox
}

/// Where tools keep what the next build can use again, and how they talk to a log
/// instead of a terminal. `/tmp` is memory, builds need more.
const BUILD_VARIABLES: [(&str, &str); 15] = [
    ("HOME", "/cache"),
    ("TMPDIR", "/var/tmp"),
    ("XDG_CACHE_HOME", "/cache/xdg"),
    ("PIP_CACHE_DIR", "/cache/pip"),
    ("PIP_NO_INPUT", "1"),
    ("PIP_PROGRESS_BAR", "off"),
    ("PIP_DISABLE_PIP_VERSION_CHECK", "1"),
    ("npm_config_cache", "/cache/npm"),
    ("npm_config_update_notifier", "false"),
    ("CARGO_HOME", "/cache/cargo"),
    ("CARGO_TARGET_DIR", "/cache/cargo-target"),
    ("GOCACHE", "/cache/go-build"),
    ("GOMODCACHE", "/cache/go-mod"),
    ("BUNDLE_USER_CACHE", "/cache/bundle"),
    ("PYTHONUNBUFFERED", "1"),
];

/// What builds and apps have in common: where they are, where their tools are.
fn surroundings<'a>(sandbox: Sandbox<'a>, root: &str) -> Sandbox<'a> {
    let dir = if root.is_empty() { "/app".to_owned() } else { format!("/app/{root}") };
    let mut own = format!("{dir}/.venv/bin:{dir}/node_modules/.bin");
    if !root.is_empty() {
        // Where workspaces put what their members share.
        own.push_str(":/app/node_modules/.bin");
    }
    let mut sandbox = sandbox
        .env("PATH", format!("{own}:/usr/local/bin:/usr/bin:/bin"))
        .env("LANG", "C.UTF-8")
        // In the release, since an app needs its gems when it runs.
        .env("BUNDLE_PATH", format!("{dir}/vendor/bundle"));
    for (name, value) in proxy_env::variables() {
        sandbox = sandbox.env(name, value);
    }
    sandbox.dir(dir)
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
