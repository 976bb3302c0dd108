//! Starts a release in a sandbox, where it has still to prove itself.

use super::environment::for_app;
use super::instance::Instance;
use super::ports::Ports;
use super::tcp_sockets::listeners;
use crate::disk::layout::Layout;
use crate::journal::{HALF_APP_LOG, Journal};
use crate::model::{DeployId, HostSocket};
use crate::sandbox::host::Host;
use crate::sandbox::host_watch::HostWatch;
use crate::sandbox::limits::Limits;
use crate::sandbox::port_range::RANGE;
use crate::store::{App, Process, Store};
use std::path::{Path, PathBuf};
use std::sync::Arc;

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

/// Starts releases.
pub struct Launcher {
    store: Arc<Store>,
    journal: Arc<Journal>,
    layout: Layout,
    host: Arc<HostWatch>,
    ports: Ports,
}

impl Launcher {
    /// One that knows of no port yet that an app has.
    #[must_use]
    pub fn new(
        store: &Arc<Store>,
        journal: &Arc<Journal>,
        layout: &Layout,
        host: &Arc<HostWatch>,
    ) -> Self {
        let (store, journal) = (Arc::clone(store), Arc::clone(journal));
        let (layout, host, ports) = (layout.clone(), Arc::clone(host), Ports::default());
        Self { store, journal, layout, host, ports }
    }

    /// Takes note of a port that an app has, or had when the last server ended.
    pub fn port_is_taken(&self, port: u16) {
        self.ports.had(port);
    }

    /// Starts the release of a deploy, its own or an earlier one, on a fresh port, with the
    /// environment opened at this moment.
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
        let (layout, journal) = (&self.layout, &self.journal);
        let host = self.host.wait()?;
        let spec = layout.start_spec(&app.id, release).ok_or("its files are gone; deploy again")?;
        let start = spec.start.as_deref().ok_or("it is a static site, which has no process")?;
        let env = self.store.env_clear(&app.id).map_err(|e| e.to_string())?;
        let log = journal.app_log_files(&app.id);
        let log = log.map_err(|e| format!("the app's log cannot be written: {e}"))?;
        let port = self.ports.fresh().map_err(|e| format!("{e}{}", self.who_has_ports(&host)))?;
        journal.note_app(&app.id, &mark(deploy));
        let mut sandbox = for_app(&host, app.slot, &spec, env)
            .bind(&layout.release(&app.id, release), "/app")
            .bind(&layout.persistent(&app.id), "/data")
            .port(port);
        sandbox.log = Some(HALF_APP_LOG);
        sandbox.limits = Limits::of_app(app, host.memory);
        sandbox.exit_file = Some(layout.exit_file(&app.id, port));
        sandbox.sockets = sockets(app, &layout.apps())?;
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

    /// Who has the most of the ports that apps are given, as the end of a sentence.
    fn who_has_ports(&self, host: &Host) -> String {
        let all = listeners();
        let of = |app: &App| {
            let uid = host.users.outside_uid(app.slot);
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
pub fn mark(deploy: &DeployId) -> String {
    format!("Starting release {deploy}.")
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
