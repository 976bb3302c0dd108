//! What the rest of the program asks of the pipeline, and who does the work.

use super::error::DeployError;
use super::gc::GarbageCollector;
use super::host_names::{self, HostName};
use super::outcome::REMOVED;
use super::pipeline::Pipeline;
use super::queue::{Queue, Removal};
use super::worker::Worker;
use crate::data_dir::DataDir;
use crate::disk::layout::{Layout, apps_in};
use crate::journal::Journal;
use crate::model::{AppId, AppName, AppStatus, DeployId, DeployStatus, Domain, Trigger, Wanted};
use crate::router::{Router, RouterState, Settings, Target};
use crate::runtime::launch::Launcher;
use crate::runtime::port_guard::PortGuard;
use crate::runtime::recovery::recover;
use crate::runtime::status_board::{AppState, StatusBoard};
use crate::runtime::supervisor::{self, Handle, Message, Supervisor};
use crate::runtime::target::target_of;
use crate::sandbox::fences::Fences;
use crate::sandbox::host_watch::HostWatch;
use crate::sandbox::limits_report::{self, Report as LimitsReport};
use crate::store::{App, Delivered, Deploy, Store, StoreError};
use crate::sync::lock;
use std::net::IpAddr;
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

/// The entrance of the pipeline.
pub struct Deployer {
    store: Arc<Store>,
    journal: Arc<Journal>,
    layout: Layout,
    queue: Arc<Queue>,
    router: Arc<Router>,
    host: Arc<HostWatch>,
    supervisor: Arc<Handle>,
    board: Arc<StatusBoard>,
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
        let io = |what| move |error| DeployError::Io(what, error);
        let layout = Layout::new(data.clone());
        let (router, guard) = start_router(routing, &data, &store, &journal)?;
        let host = HostWatch::new(layout.clone()).map_err(io("look at the machine"))?;
        let host = Arc::new(host);
        let launcher = Arc::new(Launcher::new(&store, &journal, &layout, &host));
        let found = recover(&store, &journal, &layout, &router, &launcher)?;
        let queue = Arc::new(Queue::default());
        let gc = Arc::new(GarbageCollector {
            store: Arc::clone(&store),
            journal: Arc::clone(&journal),
            layout: layout.clone(),
            queue: Arc::clone(&queue),
            router: Arc::clone(&router),
            host: Arc::clone(&host),
        });
        // After the sweep: nobody works in these directories any more.
        gc.clear_interrupted()?;
        let (handle, mailbox) = Handle::new().map_err(io("start the supervisor"))?;
        let (handle, board) = (Arc::new(handle), Arc::new(StatusBoard::default()));
        let tools = supervisor::Tools {
            store: Arc::clone(&store),
            journal: Arc::clone(&journal),
            router: Arc::clone(&router),
            host: Arc::clone(&host),
            launcher: Arc::clone(&launcher),
            board: Arc::clone(&board),
        };
        let supervisor = Supervisor::new(tools, mailbox, found);
        look_at_all(&store, &board, &handle)?;
        let pipeline = Pipeline {
            store: Arc::clone(&store),
            journal: Arc::clone(&journal),
            layout: layout.clone(),
            queue: Arc::clone(&queue),
            router: Arc::clone(&router),
            host: Arc::clone(&host),
            launcher,
            supervisor: Arc::clone(&handle),
            board: Arc::clone(&board),
            gc: Arc::clone(&gc),
        };
        let worker = Worker { queue: Arc::clone(&queue), store: Arc::clone(&store), pipeline };
        let (watched, routed) = (Arc::clone(&host), Arc::clone(&router));
        let own_ports = move || [own_port].into_iter().chain(routed.ports()).collect();
        let threads = vec![
            spawn("probe", move || {
                watched.run(&own_ports, &|port| {
                    let _ = guard.take_back(port);
                })
            })?,
            spawn("supervisor", move || supervisor.run())?,
            spawn("gc", move || gc.run())?,
            spawn("deploys", move || worker.run())?,
        ];
        let threads = Mutex::new(threads);
        let supervisor = handle;
        let deployer =
            Self { store, journal, layout, queue, router, host, supervisor, board, threads };
        Ok(Arc::new(deployer))
    }

    /// Puts a deploy into the queue; one of the same app that still waits is replaced.
    ///
    /// # Errors
    /// [`DeployError::Runtime`] when this machine could not run it anyway.
    pub fn request(&self, app: &AppId, trigger: Trigger) -> Result<Deploy, DeployError> {
        self.check_runtime()?;
        let queued = self.store.queue_deploy(app, trigger, None)?;
        let deploy = queued.ok_or(DeployError::NoApp)?;
        self.queue.wake();
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
        match self.store.queue_delivered(app, delivery)? {
            Delivered::Queued(deploy) => {
                self.queue.wake();
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
        let found = self.store.deploy(to)?.filter(|deploy| deploy.app == *app);
        if !found.is_some_and(|deploy| self.can_roll_back(&deploy)) {
            return Err(DeployError::NoRelease);
        }
        let deploy = self.store.queue_deploy(app, Trigger::Rollback, Some(to))?;
        let deploy = deploy.ok_or(DeployError::NoApp)?;
        self.queue.wake();
        Ok(deploy)
    }

    /// Whether a deploy was live and its release is still there, files of a static site
    /// included.
    #[must_use]
    pub fn can_roll_back(&self, deploy: &Deploy) -> bool {
        let (layout, app) = (&self.layout, &deploy.app);
        let release = deploy.release.as_ref().unwrap_or(&deploy.id);
        deploy.status == DeployStatus::Live
            && layout
                .start_spec(app, release)
                .is_some_and(|spec| spec.start.is_some() || layout.site(app, release).is_dir())
    }

    /// Ends this deploy alone, queued or under way; what is live stays.
    ///
    /// # Errors
    /// [`DeployError::Ended`] when it has ended already.
    pub fn cancel(&self, deploy: &DeployId) -> Result<(), DeployError> {
        if !self.store.fail_deploy(deploy, "cancelled")? {
            return Err(DeployError::Ended);
        }
        self.queue.cancel(deploy);
        Ok(())
    }

    /// Wants the app to run; the supervisor does the rest.
    ///
    /// # Errors
    /// [`DeployError::NothingToStart`] before its first successful deploy.
    pub fn start_app(&self, app: &AppId) -> Result<(), DeployError> {
        self.want_running(app)?;
        self.supervisor.send(Message::Look(app.clone()));
        Ok(())
    }

    /// Wants a new process of the app's live release, with the environment and the limits as
    /// they are now: a deploy of that release. One that is stopped is just started.
    ///
    /// # Errors
    /// As [`Deployer::start_app`].
    pub fn restart_app(&self, app: &AppId) -> Result<(), DeployError> {
        let found = self.store.app(app)?.ok_or(DeployError::NoApp)?;
        if found.wanted == Wanted::Stopped {
            return self.start_app(app);
        }
        if found.live_deploy.is_none() {
            return Err(DeployError::NothingToStart);
        }
        self.check_runtime()?;
        if !self.store.queue_restart(app)? {
            return Err(DeployError::NothingToStart);
        }
        self.queue.wake();
        Ok(())
    }

    /// Wants the app to stop. A deploy of it that waits or is under way is
    /// cancelled: it would start the app again.
    ///
    /// # Errors
    /// When there is no such app, or the database does not answer.
    pub fn stop_app(&self, app: &AppId) -> Result<(), DeployError> {
        self.cancel_deploys(app, "cancelled, because the app was stopped")?;
        if !self.store.set_wanted(app, Wanted::Stopped)? {
            return Err(DeployError::NoApp);
        }
        self.supervisor.send(Message::Look(app.clone()));
        Ok(())
    }

    /// Removes an app: its deploy, its process, its files and its history. Its
    /// persistent data stays if `keep_data`.
    ///
    /// # Errors
    /// When something could not be removed; it can be tried again.
    pub fn remove_app(&self, app: &AppId, keep_data: bool) -> Result<(), DeployError> {
        let Self { store, layout, router, supervisor, .. } = self;
        let name = store.app(app)?.ok_or(DeployError::NoApp)?.name;
        self.cancel_deploys(app, REMOVED)?;
        store.set_wanted(app, Wanted::Stopped)?;
        supervisor.send(Message::Forget(app.clone()));
        // Its names stay until it is certain that the app goes: it may be tried again.
        router.point(app, &Target::Down);
        layout
            .discard_app(app, keep_data)
            .map_err(|e| DeployError::Io("remove the app's files", e))?;
        let deploys = store.deploy_ids(app)?;
        store.delete_app(app)?;
        let data = if keep_data { "its data stays" } else { "its data goes too" };
        log::info!("app {} ({app}) was deleted; {data}", name.as_str());
        router.forget(app);
        self.name_app(app);
        // Whatever the supervisor or a deploy did meanwhile is undone.
        supervisor.send(Message::Look(app.clone()));
        self.journal.remove_app(app, &deploys);
        // A deploy that is being cancelled may still make files, and this thread, which
        // answers all requests, does not wait for it.
        self.queue.remove_later(Removal { app: app.clone(), keep_data, deploys });
        Ok(())
    }

    /// Whether this machine can run apps.
    #[must_use]
    pub fn runtime(&self) -> Runtime {
        match self.host.last() {
            None => Runtime::Unknown,
            Some(Err(why)) => Runtime::Missing(why),
            Some(Ok(_)) => Runtime::Ready,
        }
    }

    /// How apps are fenced off from one another; `None` while that is not known.
    #[must_use]
    pub fn fences(&self) -> Option<Fences> {
        self.host.fences()
    }

    /// Why apps have no users of their own, where that is so, and how to mend it.
    #[must_use]
    pub fn shared_user(&self) -> Option<String> {
        self.host.last()?.ok()?.shared_because.clone()
    }

    /// An app as it is now.
    #[must_use]
    pub fn state(&self, app: &App) -> AppState {
        self.board.state(app)
    }

    /// What the router is doing.
    #[must_use]
    pub fn router(&self) -> RouterState {
        self.router.state()
    }

    /// What the owner should know of the router while it runs.
    #[must_use]
    pub fn router_trouble(&self) -> Option<String> {
        host_names::router_trouble(&self.router, &self.store)
    }

    /// What is known of each host name of an app, and the addresses under which the
    /// Internet knows this machine.
    #[must_use]
    pub fn host_names(&self, app: &App) -> (Vec<HostName>, Vec<IpAddr>) {
        host_names::host_names(&self.router, app)
    }

    /// Everywhere an app answers, while it runs; the best first.
    #[must_use]
    pub fn urls(&self, app: &App) -> Vec<String> {
        host_names::urls(&self.router, app)
    }

    /// Judges the host names that an app is about to have.
    ///
    /// # Errors
    /// [`DeployError::Host`] for a name that another one has.
    pub fn admit(
        &self,
        app: Option<&AppId>,
        name: &AppName,
        domains: &[Domain],
    ) -> Result<(), DeployError> {
        host_names::admit(&self.router, &self.store, app, name, domains)
    }

    /// Leads the host names that an app has now, or had, to where they belong.
    pub fn name_app(&self, app: &AppId) {
        match self.store.apps() {
            Ok(all) => self.router.name(&all),
            Err(error) => log::error!("the names of app {app} could not be changed: {error}"),
        }
    }

    /// The limits of an app as they are; `None` while this machine is not known.
    #[must_use]
    pub fn limits(&self, app: &App) -> Option<LimitsReport> {
        let host = self.host.last()?.ok()?;
        Some(limits_report::report(app, &host))
    }

    /// Refuses when this machine is known to run no apps. Never waits, for one thread has all
    /// requests that change something: before the first look has ended the queue takes what is
    /// asked, and the worker waits.
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
        self.queue.close("the server was stopped; deploy again");
        self.supervisor.send(Message::Shutdown);
        self.router.shutdown();
        self.host.close();
        for thread in lock(&self.threads).drain(..) {
            let name = thread.thread().name().unwrap_or_default().to_owned();
            if thread.join().is_err() {
                log::error!("the thread {name} had ended with a panic");
            }
        }
    }

    fn want_running(&self, app: &AppId) -> Result<(), DeployError> {
        let found = self.store.app(app)?.ok_or(DeployError::NoApp)?;
        if found.live_deploy.is_none() {
            return Err(DeployError::NothingToStart);
        }
        self.check_runtime()?;
        if found.wanted == Wanted::Stopped {
            // Before anybody sees one that is wanted and does not run.
            self.board.to_start(app);
        }
        self.store.set_wanted(app, Wanted::Running)?;
        Ok(())
    }

    fn cancel_deploys(&self, app: &AppId, why: &'static str) -> Result<(), DeployError> {
        let ended = self.store.fail_deploys(app, why)?;
        ended.iter().for_each(|deploy| self.queue.cancel(deploy));
        Ok(())
    }
}

/// Starts the router with the apps as the database has them, before anything is ended: what a
/// killed server had switched to, but not noted, is about to be.
fn start_router(
    settings: Option<Settings>,
    data: &DataDir,
    store: &Arc<Store>,
    journal: &Arc<Journal>,
) -> Result<(Arc<Router>, Arc<PortGuard>), DeployError> {
    let (store, journal) = (Arc::clone(store), Arc::clone(journal));
    let apps = store.apps()?.into_iter().map(|app| (target_of(&app), app));
    let apps: Vec<_> = apps.map(|(target, app)| (app, target)).collect();
    let guard = Arc::new(PortGuard { apps: apps_in(data), store, journal });
    let for_router = Arc::clone(&guard);
    let take_back = Box::new(move |port| for_router.take_back(port));
    let router = Router::start(settings, data, apps, take_back);
    let router = router.map_err(|error| DeployError::Io("prepare the router", error))?;
    Ok((Arc::new(router), guard))
}

/// Has the supervisor start what should run and does not.
fn look_at_all(store: &Store, board: &StatusBoard, supervisor: &Handle) -> Result<(), StoreError> {
    for app in store.apps()? {
        if app.status == AppStatus::Crashed {
            board.to_start(&app.id);
        }
        supervisor.send(Message::Look(app.id));
    }
    Ok(())
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, DeployError> {
    let spawned = Builder::new().name(name.to_owned()).spawn(work);
    spawned.map_err(|e| DeployError::Io("start a thread", e))
}
