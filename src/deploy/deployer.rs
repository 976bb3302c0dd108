//! What the rest of the program asks of the pipeline, and who does the work.

use super::error::DeployError;
use super::gc;
use super::host_names::admit;
use super::outcome::REMOVED;
use super::pipeline::Pipeline;
use super::queue::Queue;
use super::worker;
use crate::data_dir::DataDir;
use crate::disk::layout::Layout;
use crate::journal::{Journal, LogOf};
use crate::model::{AnyError, AppId, DeployId, DeployStatus, Routing, Trigger, Wanted, failed};
use crate::router::{Router, Target};
use crate::runtime::jobs;
use crate::runtime::port_guard::take_back;
use crate::runtime::ports::Ports;
use crate::runtime::recovery::recover;
use crate::runtime::runs::Runs;
use crate::runtime::status_board::StatusBoard;
use crate::runtime::tools::{Mailbox, Message, Tools};
use crate::sandbox::host_watch::HostWatch;
use crate::store::{App, AppDraft, Delivered, Deploy, Store};
use crate::sync::lock;
use std::mem::take;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};
use std::thread::{Builder, JoinHandle};

/// The entrance of the pipeline.
pub struct Deployer {
    /// What apps run with.
    pub tools: Arc<Tools>,
    /// Commands that run once in an app's place.
    pub runs: Arc<Runs>,
    queue: Arc<Queue>,
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
        (own_port, routing): (u16, Routing),
    ) -> Result<Arc<Self>, AnyError> {
        let layout = Layout::new(data.clone());
        let tools = Arc::new(Tools {
            router: start_router(routing, &data, &store, &journal)?,
            host: HostWatch::new(layout.clone())
                .map_err(failed("could not look at the machine"))?,
            own_port,
            mailbox: Mailbox::new().map_err(failed("could not start the supervisor"))?,
            ports: Ports::default(),
            board: StatusBoard::default(),
            store,
            journal,
            layout,
        });
        let supervisor = recover(&tools)?;
        // After the sweep: nobody works in these directories any more.
        gc::clear_interrupted(&tools)?;
        let runs = Arc::new(Runs::new(Arc::clone(&tools))?);
        let queue = Arc::new(Queue::default());
        let pipeline = Pipeline { tools: Arc::clone(&tools), queue: Arc::clone(&queue) };
        let (watching, tidying) = (Arc::clone(&tools), (Arc::clone(&tools), Arc::clone(&queue)));
        let mut clock = jobs::Clock::new(Arc::clone(&tools), Arc::clone(&runs));
        let ticking = Arc::clone(&queue);
        let threads = vec![
            spawn("probe", move || watch(&watching))?,
            spawn("supervisor", move || supervisor.run())?,
            spawn("gc", move || gc::run(&tidying.0, &tidying.1))?,
            spawn("jobs", move || while ticking.pause(clock.look()) {})?,
            spawn("deploys", move || worker::run(&pipeline))?,
        ];
        Ok(Arc::new(Self { tools, runs, queue, threads: Mutex::new(threads) }))
    }

    /// Puts a deploy into the queue; one of the same app that still waits is replaced.
    ///
    /// # Errors
    /// [`DeployError::Runtime`] when this machine could not run it anyway.
    pub fn request(&self, app: &AppId, trigger: Trigger) -> Result<Deploy, DeployError> {
        self.check_runtime()?;
        self.queued(self.tools.store.queue_deploy(app, trigger, None)?)
    }

    /// Puts a deploy into the queue of what an archive holds that is read when its turn comes; one
    /// of the same app that still waits is replaced.
    ///
    /// # Errors
    /// As [`Deployer::request`].
    pub fn upload(&self, app: &AppId, archive: OwnedFd) -> Result<Deploy, DeployError> {
        self.check_runtime()?;
        let ask = || self.tools.store.queue_deploy(app, Trigger::Upload, None);
        self.queue.keep_archive(archive, ask)?.ok_or(DeployError::NoApp)
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
        match self.tools.store.queue_delivered(app, delivery)? {
            Delivered::Queued(deploy) => self.queued(Some(*deploy)).map(Some),
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
        let found = self.tools.store.deploy(to)?.filter(|deploy| deploy.app == *app);
        if !found.is_some_and(|deploy| self.can_roll_back(&deploy)) {
            return Err(DeployError::NoRelease);
        }
        self.queued(self.tools.store.queue_deploy(app, Trigger::Rollback, Some(to))?)
    }

    fn queued(&self, deploy: Option<Deploy>) -> Result<Deploy, DeployError> {
        self.queue.wake();
        deploy.ok_or(DeployError::NoApp)
    }

    /// Whether a deploy was live and its release is still there, files of a static site
    /// included.
    pub fn can_roll_back(&self, deploy: &Deploy) -> bool {
        let (layout, app) = (&self.tools.layout, &deploy.app);
        let release = deploy.release.as_ref().unwrap_or(&deploy.id);
        deploy.status == DeployStatus::Live
            && layout.start_spec(app, release).is_some_and(|spec| {
                let is_run = spec.start.is_some() || spec.workers_only;
                is_run || layout.site(app, release).is_dir()
            })
    }

    /// Ends this deploy alone, queued or under way; what is live stays.
    ///
    /// # Errors
    /// [`DeployError::Ended`] when it has ended already.
    pub fn cancel(&self, deploy: &DeployId) -> Result<(), DeployError> {
        if !self.tools.store.fail_deploy(deploy, "cancelled")? {
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
        let found = self.tools.store.app(app)?.ok_or(DeployError::NoApp)?;
        if found.live_deploy.is_none() {
            return Err(DeployError::NothingToStart);
        }
        self.check_runtime()?;
        if found.wanted == Wanted::Stopped {
            // Before anybody sees one that is wanted and does not run.
            self.tools.board.to_start(app);
        }
        self.tools.store.set_wanted(app, Wanted::Running)?;
        self.tools.mailbox.send(Message::Look(app.clone()));
        Ok(())
    }

    /// Wants a new process of the app's live release, with the environment and the limits as
    /// they are now: a deploy of that release. One that is stopped is just started.
    ///
    /// # Errors
    /// As [`Deployer::start_app`].
    pub fn restart_app(&self, app: &AppId) -> Result<(), DeployError> {
        let found = self.tools.store.app(app)?.ok_or(DeployError::NoApp)?;
        if found.wanted == Wanted::Stopped {
            return self.start_app(app);
        }
        self.check_runtime()?;
        if !self.tools.store.queue_restart(app)? {
            return Err(DeployError::NothingToStart);
        }
        self.queue.wake();
        Ok(())
    }

    /// Wants the app to stop, and ends the runs of its jobs. A deploy of it that waits or is
    /// under way is cancelled: it would start the app again.
    ///
    /// # Errors
    /// When there is no such app, or the database does not answer.
    pub fn stop_app(&self, app: &AppId) -> Result<(), DeployError> {
        self.cancel_deploys(app, "cancelled, because the app was stopped")?;
        if !self.tools.store.set_wanted(app, Wanted::Stopped)? {
            return Err(DeployError::NoApp);
        }
        self.runs.cancel_of(app, false);
        self.tools.mailbox.send(Message::Look(app.clone()));
        Ok(())
    }

    /// Removes an app: its deploy, its process, its files and its history. Its
    /// persistent data stays if `keep_data`.
    ///
    /// # Errors
    /// When something could not be removed; it can be tried again.
    pub fn remove_app(&self, app: &AppId, keep_data: bool) -> Result<(), DeployError> {
        let Tools { store, journal, layout, router, mailbox, .. } = &*self.tools;
        let name = store.app(app)?.ok_or(DeployError::NoApp)?.name;
        self.cancel_deploys(app, REMOVED)?;
        store.set_wanted(app, Wanted::Stopped)?;
        mailbox.send(Message::Forget(app.clone()));
        // Its names stay until it is certain that the app goes: it may be tried again.
        router.point(app, &Target::Down);
        layout.discard_app(app, keep_data).map_err(DeployError::NotRemoved)?;
        let mut logs: Vec<_> = store.deploy_ids(app)?.into_iter().map(LogOf::Deploy).collect();
        logs.extend(store.runs(app)?.into_iter().map(|run| LogOf::Run(run.id)));
        store.delete_app(app)?;
        // From here on none can begin.
        self.runs.cancel_of(app, true);
        let data = if keep_data { "its data stays" } else { "its data goes too" };
        log::info!("app {} ({app}) was deleted; {data}", name.as_str());
        router.forget(app);
        self.name_app(app);
        // Whatever the supervisor or a deploy did meanwhile is undone.
        mailbox.send(Message::Look(app.clone()));
        journal.remove_app(app, &logs);
        // A deploy that is being cancelled may still make files, and this thread, which
        // answers all requests, does not wait for it: it removes them itself.
        self.queue.tidy();
        Ok(())
    }

    /// Stores a new app, and gives it its host names.
    ///
    /// # Errors
    /// [`DeployError::Host`] for a name or port that another has, or as [`Store::create_app`].
    pub fn make(&self, draft: &AppDraft) -> Result<App, DeployError> {
        admit(&self.tools, None, draft)?;
        let id = self.tools.store.create_app(draft)?;
        self.name_app(&id);
        self.tools.store.app(&id)?.ok_or(DeployError::NoApp)
    }

    /// Leads the host names that an app has now, or had, to where they belong.
    pub fn name_app(&self, app: &AppId) {
        match self.tools.store.apps() {
            Ok(all) => self.tools.router.name(&all),
            Err(error) => log::error!("the names of app {app} could not be changed: {error}"),
        }
    }

    /// Refuses when this machine is known to run no apps. Never waits, for one thread has all
    /// requests that change something: before the first look has ended the queue takes what is
    /// asked, and the worker waits.
    ///
    /// # Errors
    /// [`DeployError::Runtime`].
    pub fn check_runtime(&self) -> Result<(), DeployError> {
        match self.tools.host.last() {
            Some(Err(why)) => Err(DeployError::Runtime(why)),
            Some(Ok(_)) | None => Ok(()),
        }
    }

    /// Cancels the deploys and runs that are under way and joins the threads; apps keep running.
    /// Takes less than 8 s unless several of them are slow to end.
    pub fn shutdown(&self) {
        self.queue.close();
        self.tools.router.shutdown();
        self.tools.host.close();
        self.runs.shutdown();
        let join = |thread: JoinHandle<()>| {
            let name = thread.thread().name().unwrap_or_default().to_owned();
            if thread.join().is_err() {
                log::error!("the thread {name} had ended with a panic");
            }
        };
        let mut threads = take(&mut *lock(&self.threads));
        // First the one that deploys: what deploys end with is for the supervisor to hear.
        threads.pop().into_iter().for_each(join);
        self.tools.mailbox.send(Message::Shutdown);
        threads.into_iter().for_each(join);
    }

    fn cancel_deploys(&self, app: &AppId, why: &'static str) -> Result<(), DeployError> {
        let ended = self.tools.store.fail_deploys(app, why)?;
        ended.iter().for_each(|deploy| self.queue.cancel(deploy));
        Ok(())
    }
}

/// Starts the router with the apps as the database has them, before anything is ended: what a
/// killed server had switched to, but not noted, is about to be.
fn start_router(
    routing: Routing,
    data: &DataDir,
    store: &Arc<Store>,
    journal: &Arc<Journal>,
) -> Result<Router, AnyError> {
    let all = store.apps()?;
    let (store, journal, apps) =
        (Arc::clone(store), Arc::clone(journal), Layout::new(data.clone()).apps());
    let take_back = Box::new(move |port| take_back(&store, &journal, &apps, port));
    Router::start(routing, data, &all, take_back).map_err(failed("could not prepare the router"))
}

/// Looks at the machine, and takes the server's own ports back where it does not keep them.
fn watch(tools: &Tools) {
    tools.host.run(&|| tools.own_ports(), &|port| {
        let _ = take_back(&tools.store, &tools.journal, &tools.layout.apps(), port);
    });
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, AnyError> {
    Builder::new().name(name.to_owned()).spawn(work).map_err(failed("could not start a thread"))
}
