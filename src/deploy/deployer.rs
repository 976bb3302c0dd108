//! What the rest of the program asks of the pipeline, and who does the work.

use super::fence::Fence;
use super::instance::{Instance, sweep};
use super::lookout::Lookout;
use super::places::Places;
use super::port::Ports;
use super::route::{Router, Settings, State, Target};
use super::supervise::{Desk, Order, Supervisor};
use super::worker::Queue;
use crate::data_dir::DataDir;
use crate::journal::Journal;
use crate::model::{AppId, AppName, DeployStatus, Domain, Trigger, Wanted};
use crate::store::{App, Delivered, Deploy, Store, StoreError};
use std::collections::HashSet;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

/// How long a removal waits for a deploy of the same app to be cancelled: it takes
/// milliseconds, and the thread that answers all requests waits meanwhile.
const CANCELLED: Duration = Duration::from_secs(1);

/// Why the pipeline did not take a request.
#[derive(Debug)]
pub enum DeployError {
    /// No such app.
    NoApp,
    /// The app has no live release that could be started.
    NothingToStart,
    /// This machine cannot run apps; the sentence says why and what to do.
    Runtime(String),
    /// A host name cannot be the app's: which field it comes from, and why.
    Host {
        /// `name` or `domains`.
        field: &'static str,
        /// Why not.
        sentence: String,
    },
    /// The database did not do its part.
    Store(StoreError),
    /// The system did not do its part: what failed, and why.
    Io(&'static str, io::Error),
}

impl fmt::Display for DeployError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoApp => f.write_str("there is no such app"),
            Self::NothingToStart => f.write_str("the app has no live release; deploy it first"),
            Self::Runtime(sentence) | Self::Host { sentence, .. } => f.write_str(sentence),
            Self::Store(error) => error.fmt(f),
            Self::Io(what, error) => write!(f, "could not {what}: {error}"),
        }
    }
}

impl std::error::Error for DeployError {}

impl From<StoreError> for DeployError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

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
    /// Where the supervisor gets its orders.
    pub desk: Desk,
    /// What is known of the machine.
    pub lookout: Lookout,
}

/// The pipeline.
pub struct Deployer {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Deployer {
    /// Brings order into what the last run left, finds the apps that kept running,
    /// starts those that should run and do not, and waits for requests.
    ///
    /// # Errors
    /// When the database does not answer or threads cannot be started.
    pub fn start(
        store: Arc<Store>,
        journal: Arc<Journal>,
        data: DataDir,
        routing: Option<Settings>,
    ) -> Result<Arc<Self>, DeployError> {
        // Before anything is ended: what a killed server had switched to, but not noted,
        // is about to be.
        let apps = store.apps()?.into_iter().map(|app| (led_to(&app), app));
        let apps: Vec<_> = apps.map(|(target, app)| (app, target)).collect();
        let router = Router::start(routing, &data, &apps);
        let router = router.map_err(|e| DeployError::Io("prepare the router", e))?;
        let (desk, inbox) = Desk::new().map_err(|e| DeployError::Io("start the supervisor", e))?;
        let shared = Arc::new(Shared {
            store,
            journal,
            places: Places::new(data),
            ports: Ports::default(),
            queue: Queue::default(),
            router,
            desk,
            lookout: Lookout::new().map_err(|e| DeployError::Io("look at the machine", e))?,
        });
        for deploy in shared.store.fail_interrupted()? {
            log::warn!("deploy {} was interrupted when the server ended", deploy.id);
        }
        let found = recover(&shared)?;
        let supervisor = Supervisor::new(Arc::clone(&shared), inbox, found);
        for app in shared.store.apps()? {
            shared.desk.give(Order::Look(app.id));
        }
        let (worker, lookout) = (Arc::clone(&shared), Arc::clone(&shared));
        let threads = vec![
            spawn("lookout", move || lookout.look_out())?,
            spawn("supervisor", move || supervisor.run())?,
            spawn("deploys", move || {
                worker.work();
            })?,
        ];
        Ok(Arc::new(Self { shared, threads: Mutex::new(threads) }))
    }

    /// Puts a deploy into the queue; one of the same app that still waits is replaced.
    ///
    /// # Errors
    /// [`DeployError::Runtime`] when this machine could not run it anyway.
    pub fn request(&self, app: &AppId, trigger: Trigger) -> Result<Deploy, DeployError> {
        self.not_wanting()?;
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
        self.shared.machine().map_err(DeployError::Runtime)?;
        match self.shared.store.queue_delivered(app, delivery)? {
            Delivered::Queued(deploy) => {
                self.shared.queue.wake();
                Ok(Some(*deploy))
            }
            Delivered::Before => Ok(None),
            Delivered::NoApp => Err(DeployError::NoApp),
        }
    }

    /// Wants the app to run; the supervisor does the rest.
    ///
    /// # Errors
    /// [`DeployError::NothingToStart`] before its first successful deploy.
    pub fn start_app(&self, app: &AppId) -> Result<(), DeployError> {
        self.want_running(app)?;
        self.shared.desk.give(Order::Look(app.clone()));
        Ok(())
    }

    /// Wants a new process of the app's live release, with the environment as it is now.
    ///
    /// # Errors
    /// As [`Deployer::start_app`].
    pub fn restart_app(&self, app: &AppId) -> Result<(), DeployError> {
        self.want_running(app)?;
        self.shared.desk.give(Order::Restart(app.clone()));
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
        self.shared.desk.give(Order::Look(app.clone()));
        Ok(())
    }

    /// Removes an app: its deploy, its process, its files and its history. Its
    /// persistent data stays if `keep_data`.
    ///
    /// # Errors
    /// When something could not be removed; it can be tried again.
    pub fn remove_app(&self, app: &AppId, keep_data: bool) -> Result<(), DeployError> {
        let shared = &self.shared;
        if shared.store.app(app)?.is_none() {
            return Err(DeployError::NoApp);
        }
        self.cancel_deploys(app, "cancelled, because the app was removed")?;
        shared.queue.wait_until_free_of(app, CANCELLED);
        shared.store.set_wanted(app, Wanted::Stopped)?;
        shared.desk.give(Order::Forget(app.clone()));
        shared.router.forget(app);
        shared
            .places
            .discard_app(app, keep_data)
            .map_err(|e| DeployError::Io("remove the app's files", e))?;
        let deploys = shared.store.deploy_ids(app)?;
        shared.store.delete_app(app)?;
        self.readmit();
        shared.journal.remove_app(app, &deploys);
        shared.queue.wake();
        Ok(())
    }

    /// Whether this machine can run apps.
    #[must_use]
    pub fn runtime(&self) -> Runtime {
        match self.shared.lookout.machine() {
            None => Runtime::Unknown,
            Some(Err(why)) => Runtime::Missing(why),
            Some(Ok(_)) => Runtime::Ready,
        }
    }

    /// Whether a firewall keeps apps from the machine's ports; `None` while that is not known.
    #[must_use]
    pub fn fence(&self) -> Option<Fence> {
        self.shared.lookout.fence()
    }

    /// Why apps have no users of their own, where that is so, and how to mend it.
    #[must_use]
    pub fn shared_user(&self) -> Option<String> {
        self.shared.lookout.machine()?.ok()?.shared_because
    }

    fn not_wanting(&self) -> Result<(), DeployError> {
        match self.runtime() {
            Runtime::Missing(why) => Err(DeployError::Runtime(why)),
            // Whoever needs the machine waits for the first look.
            Runtime::Ready | Runtime::Unknown => Ok(()),
        }
    }

    /// What the router is doing.
    #[must_use]
    pub fn router(&self) -> State {
        self.shared.router.state()
    }

    /// Where an app answers, while it runs: through the router, or at its port.
    #[must_use]
    pub fn url(&self, app: &App) -> Option<String> {
        let port = match led_to(app) {
            Target::Down => return None,
            Target::Files(..) => None,
            Target::Process(port) => Some(port),
        };
        let at_port = || port.map(|port| format!("http://127.0.0.1:{port}"));
        self.shared.router.url(app).or_else(at_port)
    }

    /// Judges the host names that an app is about to have, and prepares the router for
    /// them. Then they are stored, or [`Deployer::readmit`] undoes it.
    ///
    /// # Errors
    /// [`DeployError::Host`] for a name that another one has or that the router refuses;
    /// everything is then as it was.
    pub fn admit(
        &self,
        app: Option<&AppId>,
        name: &AppName,
        domains: &[Domain],
    ) -> Result<(), DeployError> {
        let Some(settings) = self.shared.router.settings() else { return Ok(()) };
        let refused = |field, sentence| Err(DeployError::Host { field, sentence });
        let host = settings.host_of(name);
        let taken = |host: &str| settings.dashboard_domain.as_deref() == Some(host);
        if taken(&host) {
            return refused("name", format!("{host} is where the dashboard answers"));
        }
        if let Some(domain) = domains.iter().find(|d| taken(d.as_str())) {
            let sentence = format!("{} is where the dashboard answers", domain.as_str());
            return refused("domains", sentence);
        }
        let mut hosts: Vec<String> = domains.iter().map(|d| d.as_str().to_owned()).collect();
        for other in self.shared.store.apps()?.iter().filter(|other| Some(&other.id) != app) {
            if other.domains.iter().any(|domain| domain.as_str() == host) {
                return refused(
                    "name",
                    format!("{host} is a domain of app {}", other.name.as_str()),
                );
            }
            let theirs = settings.host_of(&other.name);
            if domains.iter().any(|domain| domain.as_str() == theirs) {
                return refused("domains", format!("{theirs} is where another app answers"));
            }
            hosts.extend(settings.hosts(other));
        }
        hosts.push(host);
        let admitted = self.shared.router.admit(hosts.into_iter());
        admitted.or_else(|sentence| refused("domains", sentence))
    }

    /// Has the router keep to the host names that are stored.
    pub fn readmit(&self) {
        let Some(settings) = self.shared.router.settings() else { return };
        let admitted = self.shared.store.apps().map_err(|e| e.to_string()).and_then(|apps| {
            let hosts: Vec<String> = apps.iter().flat_map(|app| settings.hosts(app)).collect();
            self.shared.router.admit(hosts.into_iter())
        });
        if let Err(error) = admitted {
            log::error!("the router still has names that are no longer used: {error}");
        }
    }

    /// Leads the host names that an app has now to it.
    pub fn name_app(&self, app: &App) {
        self.shared.router.name(app);
    }

    /// Cancels a deploy that is under way and joins the threads; apps keep running.
    /// Takes less than 8 s.
    pub fn shutdown(&self) {
        self.shared.queue.close("the server was stopped; deploy again");
        self.shared.desk.give(Order::Shutdown);
        self.shared.router.shutdown();
        self.shared.lookout.close();
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
        self.not_wanting()?;
        self.shared.store.set_wanted(app, Wanted::Running)?;
        Ok(())
    }

    fn cancel_deploys(&self, app: &AppId, why: &'static str) -> Result<(), DeployError> {
        for deploy in self.shared.store.deploys(app, None, 10)? {
            if deploy.status == DeployStatus::Queued {
                self.shared.store.fail_deploy(&deploy.id, why)?;
            }
        }
        self.shared.queue.cancel(app, why);
        Ok(())
    }
}

/// Where an app's requests go, as the database knows it.
fn led_to(app: &App) -> Target {
    let running = app.process.as_ref().filter(|p| p.ended.is_none());
    match (running, &app.live_deploy) {
        _ if app.wanted == Wanted::Stopped => Target::Down,
        (_, Some(live)) if app.static_root.is_some() => Target::Files(app.id.clone(), live.clone()),
        (Some(process), _) => Target::Process(process.port),
        (None, _) => Target::Down,
    }
}

/// Finds the apps that kept running, notes the ends of the others, and ends what
/// belongs to nobody: a release that was being checked when the server was killed.
fn recover(shared: &Shared) -> Result<Vec<(AppId, Instance)>, DeployError> {
    let mut found = Vec::new();
    for app in shared.store.apps()? {
        let Some(process) = app.process.filter(|p| p.ended.is_none()) else { continue };
        match Instance::adopt(process.pid, process.start_ticks) {
            Some(instance) => {
                log::info!("app {} is still running (pid {})", app.name.as_str(), process.pid);
                found.push((app.id, instance));
            }
            None => shared.store.process_ended(&app.id, process.pid, "unknown")?,
        }
    }
    let known: HashSet<u32> = found.iter().map(|(_, instance)| instance.pid()).collect();
    let strays = sweep(&shared.places.apps(), &known);
    if strays > 0 {
        log::warn!("ended {strays} processes that the last server had not finished starting");
    }
    Ok(found)
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, DeployError> {
    let spawned = Builder::new().name(name.to_owned()).spawn(work);
    spawned.map_err(|e| DeployError::Io("start a thread", e))
}

/// A panic while a lock was held ended one deploy; what the lock guards is still whole.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
