//! What the rest of the program asks of the pipeline, and who does the work.

use super::error::DeployError;
use super::gc::Removal;
use super::hosts::led_to;
use super::worker::Queue;
use crate::data_dir::DataDir;
use crate::disk::layout::Places;
use crate::journal::Journal;
use crate::model::{AppId, AppStatus, DeployId, DeployStatus, Trigger, Wanted};
use crate::router::{Router, Settings, Target};
use crate::runtime::draining::Draining;
use crate::runtime::instance::{Instance, noted_exit, sweep};
use crate::runtime::port_guard::PortGuard;
use crate::runtime::status_board::Board;
use crate::runtime::supervisor::{Found, Handle, Message, Supervisor};
use crate::runtime::tcp_sockets::Ports;
use crate::sandbox::fences::Fences;
use crate::sandbox::host_probe::Probe;
use crate::sandbox::limits::{self, Report as LimitsReport};
use crate::store::{App, Delivered, Deploy, DrainingProcess, Store};
use crate::sync::lock;
use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::thread::{Builder, JoinHandle};

/// Whether this machine can run apps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Runtime {
    /// It can.
    Ready,
    /// It is being looked at for the first time; that takes a moment.
    Unknown,
    /// It cannot; the sentence says why and what to do.
    Missing(String),
}

/// What the pipeline's threads and its callers share.
pub struct Shared {
    /// The database.
    pub store: Arc<Store>,
    /// The logs.
    pub journal: Arc<Journal>,
    /// The files.
    pub places: Places,
    /// The ports.
    pub ports: Ports,
    /// What is to be deployed next, and what is being deployed.
    pub queue: Queue,
    /// Who leads requests to apps.
    pub router: Router,
    /// Where the dashboard answers.
    pub own_port: u16,
    /// Who keeps that port, and the router's, from apps.
    pub guard: Arc<PortGuard>,
    /// Where the supervisor is told of changes.
    pub supervisor: Handle,
    /// Where it tells what it does.
    pub board: Board,
    /// What is known of the machine.
    pub probe: Probe,
}

/// The pipeline.
pub struct Deployer {
    pub(crate) shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Deployer {
    /// Brings order into what the last run left, finds the apps that kept running,
    /// starts those that should run and do not, and waits for requests. The dashboard answers at
    /// the port that comes with the router's settings.
    ///
    /// # Errors
    /// When the database does not answer or threads cannot be started.
    pub fn start(
        store: Arc<Store>,
        journal: Arc<Journal>,
        data: DataDir,
        (own_port, routing): (u16, Option<Settings>),
    ) -> Result<Arc<Self>, DeployError> {
        // Before anything is ended: what a killed server had switched to, but not noted,
        // is about to be.
        let apps = store.apps()?.into_iter().map(|app| (led_to(&app), app));
        let apps: Vec<_> = apps.map(|(target, app)| (app, target)).collect();
        let places = Places::new(data.clone());
        let guard = Arc::new(PortGuard {
            apps: places.apps(),
            store: Arc::clone(&store),
            journal: Arc::clone(&journal),
        });
        let router = Router::start(routing, &data, &apps, Arc::clone(&guard));
        let router = router.map_err(|e| DeployError::Io("prepare the router", e))?;
        let (handle, mailbox) =
            Handle::new().map_err(|e| DeployError::Io("start the supervisor", e))?;
        let shared = Arc::new(Shared {
            store,
            journal,
            places,
            ports: Ports::default(),
            queue: Queue::default(),
            router,
            own_port,
            guard,
            supervisor: handle,
            board: Board::default(),
            probe: Probe::new().map_err(|e| DeployError::Io("look at the machine", e))?,
        });
        let found = recover(&shared)?;
        // After the sweep: nobody works in these directories any more.
        for deploy in shared.store.fail_interrupted()? {
            log::warn!("deploy {} was interrupted when the server ended", deploy.id);
            shared.clear_away(&deploy.app, &deploy.id);
        }
        let supervisor = Supervisor::new(Arc::clone(&shared), mailbox, found);
        for app in shared.store.apps()? {
            if app.status == AppStatus::Crashed {
                shared.board.to_start(&app.id);
            }
            shared.supervisor.send(Message::Look(app.id));
        }
        let [probe, pruner, worker] = [(); 3].map(|()| Arc::clone(&shared));
        let threads = vec![
            spawn("probe", move || probe.probe_until_closed())?,
            spawn("supervisor", move || supervisor.run())?,
            spawn("prune", move || pruner.collect_garbage())?,
            spawn("deploys", move || worker.work())?,
        ];
        Ok(Arc::new(Self { shared, threads: Mutex::new(threads) }))
    }

    /// Puts a deploy into the queue; one of the same app that still waits is replaced.
    ///
    /// # Errors
    /// [`DeployError::Runtime`] when this machine could not run it anyway.
    pub fn request(&self, app: &AppId, trigger: Trigger) -> Result<Deploy, DeployError> {
        self.check_runtime()?;
        let queued = self.shared.store.queue_deploy(app, trigger)?;
        let deploy = queued.ok_or(DeployError::NoApp)?;
        self.shared.queue.wake();
        Ok(deploy)
    }

    /// Puts a deploy into the queue for a webhook's delivery, which goes by several names;
    /// `None` when a delivery of one of these names was taken before.
    ///
    /// # Errors
    /// As [`Deployer::request`]; the delivery then counts as not taken.
    pub fn request_once(
        &self,
        app: &AppId,
        delivery: &[String],
    ) -> Result<Option<Deploy>, DeployError> {
        self.check_runtime()?;
        match self.shared.store.queue_delivered(app, delivery)? {
            Delivered::Queued(deploy) => {
                self.shared.queue.wake();
                Ok(Some(*deploy))
            }
            Delivered::Before => Ok(None),
            Delivered::NoApp => Err(DeployError::NoApp),
        }
    }

    /// Goes back to a release that was live before: a deploy without fetching or building.
    ///
    /// # Errors
    /// [`DeployError::NoRelease`] when it was never live, or is no longer kept.
    pub fn roll_back(&self, app: &AppId, to: &DeployId) -> Result<Deploy, DeployError> {
        self.check_runtime()?;
        let found = self.shared.store.deploy(to)?.filter(|deploy| deploy.app == *app);
        if !found.is_some_and(|deploy| self.can_roll_back(&deploy)) {
            return Err(DeployError::NoRelease);
        }
        let deploy = self.shared.store.queue_rollback(app, to)?.ok_or(DeployError::NoRelease)?;
        self.shared.queue.wake();
        Ok(deploy)
    }

    /// Whether a deploy was live and its release is still there, files of a static site
    /// included.
    #[must_use]
    pub fn can_roll_back(&self, deploy: &Deploy) -> bool {
        let (places, app) = (&self.shared.places, &deploy.app);
        let release = deploy.release.as_ref().unwrap_or(&deploy.id);
        deploy.status == DeployStatus::Live
            && places
                .recipe(app, release)
                .is_some_and(|recipe| recipe.start.is_some() || places.site(app, release).is_dir())
    }

    /// Ends this deploy alone, queued or under way; what is live stays.
    ///
    /// # Errors
    /// [`DeployError::Ended`] when it has ended already.
    pub fn cancel(&self, deploy: &DeployId) -> Result<(), DeployError> {
        if !self.shared.store.fail_deploy(deploy, "cancelled")? {
            return Err(DeployError::Ended);
        }
        self.shared.queue.cancel(deploy);
        Ok(())
    }

    /// Wants the app to run; the supervisor does the rest.
    ///
    /// # Errors
    /// [`DeployError::NothingToStart`] before its first successful deploy.
    pub fn start_app(&self, app: &AppId) -> Result<(), DeployError> {
        self.want_running(app)?;
        self.shared.supervisor.send(Message::Look(app.clone()));
        Ok(())
    }

    /// Wants a new process of the app's live release, with the environment and the limits as
    /// they are now: a deploy of that release. One that is stopped is just started.
    ///
    /// # Errors
    /// As [`Deployer::start_app`].
    pub fn restart_app(&self, app: &AppId) -> Result<(), DeployError> {
        let found = self.shared.store.app(app)?.ok_or(DeployError::NoApp)?;
        if found.wanted == Wanted::Stopped {
            return self.start_app(app);
        }
        if found.live_deploy.is_none() {
            return Err(DeployError::NothingToStart);
        }
        self.check_runtime()?;
        if !self.shared.store.queue_restart(app)? {
            return Err(DeployError::NothingToStart);
        }
        self.shared.queue.wake();
        Ok(())
    }

    /// Wants the app to stop. A deploy of it that waits or is under way is
    /// cancelled: it would start the app again.
    ///
    /// # Errors
    /// When there is no such app, or the database does not answer.
    pub fn stop_app(&self, app: &AppId) -> Result<(), DeployError> {
        self.cancel_deploys(app, "cancelled, because the app was stopped")?;
        if !self.shared.store.set_wanted(app, Wanted::Stopped)? {
            return Err(DeployError::NoApp);
        }
        self.shared.supervisor.send(Message::Look(app.clone()));
        Ok(())
    }

    /// Removes an app: its deploy, its process, its files and its history. Its
    /// persistent data stays if `keep_data`.
    ///
    /// # Errors
    /// When something could not be removed; it can be tried again.
    pub fn remove_app(&self, app: &AppId, keep_data: bool) -> Result<(), DeployError> {
        let shared = &self.shared;
        let name = shared.store.app(app)?.ok_or(DeployError::NoApp)?.name;
        self.cancel_deploys(app, super::REMOVED)?;
        shared.store.set_wanted(app, Wanted::Stopped)?;
        shared.supervisor.send(Message::Forget(app.clone()));
        // Its names stay until it is certain that the app goes: it may be tried again.
        shared.router.point(app, &Target::Down);
        shared
            .places
            .discard_app(app, keep_data)
            .map_err(|e| DeployError::Io("remove the app's files", e))?;
        let deploys = shared.store.deploy_ids(app)?;
        shared.store.delete_app(app)?;
        let data = if keep_data { "its data stays" } else { "its data goes too" };
        log::info!("app {} ({app}) was deleted; {data}", name.as_str());
        shared.router.forget(app);
        self.name_app(app);
        // Whatever the supervisor or a deploy did meanwhile is undone.
        shared.supervisor.send(Message::Look(app.clone()));
        shared.journal.remove_app(app, &deploys);
        // A deploy that is being cancelled may still make files, and this thread, which
        // answers all requests, does not wait for it.
        shared.queue.remove_later(Removal { app: app.clone(), keep_data, deploys });
        Ok(())
    }

    /// Whether this machine can run apps.
    #[must_use]
    pub fn runtime(&self) -> Runtime {
        match self.shared.probe.machine() {
            None => Runtime::Unknown,
            Some(Err(why)) => Runtime::Missing(why),
            Some(Ok(_)) => Runtime::Ready,
        }
    }

    /// How apps are fenced off from one another; `None` while that is not known.
    #[must_use]
    pub fn fences(&self) -> Option<Fences> {
        self.shared.probe.fences()
    }

    /// Why apps have no users of their own, where that is so, and how to mend it.
    #[must_use]
    pub fn shared_user(&self) -> Option<String> {
        self.shared.probe.machine()?.ok()?.shared_because.clone()
    }

    /// The limits of an app as they are; `None` while this machine is not known.
    #[must_use]
    pub fn limits(&self, app: &App) -> Option<LimitsReport> {
        let machine = self.shared.probe.machine()?.ok()?;
        Some(limits::report(app, &machine))
    }

    /// Refuses when this machine is known to run no apps. Never waits, for all requests have
    /// one thread: before the first look has ended the queue takes what is asked, and who
    /// works on it waits.
    ///
    /// # Errors
    /// [`DeployError::Runtime`].
    pub fn check_runtime(&self) -> Result<(), DeployError> {
        match self.runtime() {
            Runtime::Missing(why) => Err(DeployError::Runtime(why)),
            Runtime::Ready | Runtime::Unknown => Ok(()),
        }
    }

    /// Cancels the deploys that are under way and joins the threads; apps keep running.
    /// Takes less than 8 s.
    pub fn shutdown(&self) {
        self.shared.queue.close("the server was stopped; deploy again");
        self.shared.supervisor.send(Message::Shutdown);
        self.shared.router.shutdown();
        self.shared.probe.close();
        for thread in lock(&self.threads).drain(..) {
            let name = thread.thread().name().unwrap_or_default().to_owned();
            if thread.join().is_err() {
                log::error!("the thread {name} had ended with a panic");
            }
        }
    }

    fn want_running(&self, app: &AppId) -> Result<(), DeployError> {
        let found = self.shared.store.app(app)?.ok_or(DeployError::NoApp)?;
        if found.live_deploy.is_none() {
            return Err(DeployError::NothingToStart);
        }
        self.check_runtime()?;
        if found.wanted == Wanted::Stopped {
            // Before anybody sees one that is wanted and does not run.
            self.shared.board.to_start(app);
        }
        self.shared.store.set_wanted(app, Wanted::Running)?;
        Ok(())
    }

    fn cancel_deploys(&self, app: &AppId, why: &'static str) -> Result<(), DeployError> {
        let ended = self.shared.store.fail_deploys(app, why)?;
        ended.iter().for_each(|deploy| self.shared.queue.cancel(deploy));
        Ok(())
    }
}

/// Finds the apps that kept running, notes the ends of the others, and ends what
/// belongs to nobody: a release that was being checked when the server was killed.
fn recover(shared: &Shared) -> Result<Found, DeployError> {
    let mut found = Found { live: Vec::new(), draining: recover_draining(shared)? };
    for app in shared.store.apps()? {
        app.process.iter().for_each(|process| shared.ports.had(process.port));
        let process = app.process.filter(|p| p.ended.is_none());
        shared.places.discard_exits(&app.id, process.as_ref().map(|p| p.port));
        let Some(process) = process else { continue };
        let exit_file = shared.places.exit_file(&app.id, process.port);
        if let Some(instance) =
            Instance::adopt(process.pid, process.start_ticks, &app.id, exit_file.clone())
        {
            log::info!("app {} is still running (pid {})", app.name.as_str(), process.pid);
            found.live.push((app.id, process.port, instance));
        } else {
            // Before anything is started, which could get the port.
            shared.router.point(&app.id, &Target::Down);
            let exit = noted_exit(&exit_file);
            shared.store.process_ended(&app.id, process.pid, &exit.to_string())?;
            shared.journal.note_app(&app.id, &format!("Ended while no server ran: {exit}."));
            shared.places.discard_exits(&app.id, None);
        }
    }
    let live = found.live.iter().map(|(_, _, instance)| instance.pid());
    let known: HashSet<u32> = live.chain(found.draining.pids()).collect();
    let strays = sweep(&shared.places.apps(), &known);
    if strays > 0 {
        log::warn!("ended {strays} processes that the last server had not finished starting");
    }
    Ok(found)
}

/// Finds the processes that were replaced and still answer somebody.
fn recover_draining(shared: &Shared) -> Result<Draining, DeployError> {
    let mut draining = Draining::default();
    for DrainingProcess { app, pid, start_ticks, port } in shared.store.draining()? {
        shared.ports.had(port);
        let exit_file = shared.places.exit_file(&app, port);
        match Instance::adopt(pid, start_ticks, &app, exit_file) {
            Some(instance) => draining.replace(app, instance, port),
            None => shared.store.drained(pid, start_ticks)?,
        }
    }
    Ok(draining)
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, DeployError> {
    let spawned = Builder::new().name(name.to_owned()).spawn(work);
    spawned.map_err(|e| DeployError::Io("start a thread", e))
}
