//! Keeps what should run running: one thread that holds every live app.
//!
//! It hears of changes by messages and of ends through pidfds. What it does follows
//! from two things alone: what the owner wants (in the database) and what runs.

use super::draining::{Draining, LOOK, Why, record_end};
use super::exit_reason::how_it_ended;
use super::health_check::listens;
use super::hold::Hold;
use super::instance::Instance;
use super::launch::launch;
use super::restart::{after_end, after_failure};
use super::status_board::FIRST_PAUSE;
use super::tcp_sockets::listeners;
use super::tools::{Message, Tools};
use super::workers::Workers;
use crate::model::{AnyError, AppId, Wanted};
use crate::proc::wait_any;
use crate::router::Target;
use crate::store::{App, Process, Worker};
use std::collections::HashMap;
use std::mem::take;
use std::ops::ControlFlow;
use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

/// The longest time between two looks at an app that does not listen yet; it grows up
/// to here with the time that the app has taken.
const SELDOM: Duration = Duration::from_secs(2);
/// Deploys that came to nothing whose requests an app has waiting.
const MOST_HOLDS: usize = 3;
/// Time between two looks when nothing is expected.
const IDLE: Duration = Duration::from_secs(60);

/// A process of a live release.
struct Live {
    instance: Instance,
    /// Where it listens.
    port: u16,
    since: Instant,
    /// When to look whether it listens, until it does: before that nobody is led to it.
    look_at: Option<Instant>,
}

/// What is known of one app.
#[derive(Default)]
struct Supervised {
    live: Option<Live>,
    /// When to start it, if it is to be started.
    start_at: Option<Instant>,
    /// A deploy runs it at the moment, alone: nothing is to be started beside it.
    has_given_way: bool,
    /// Dropped, which tells that deploy, once no process of the app is left.
    told: Option<Sender<()>>,
    /// Requests that wait until it listens.
    holds: Vec<Hold>,
}

/// The supervisor.
pub struct Supervisor {
    tools: Arc<Tools>,
    apps: HashMap<AppId, Supervised>,
    /// The processes without a port.
    pub workers: Workers,
    /// The processes on their way out.
    pub draining: Draining,
}

impl Supervisor {
    /// One that knows of no process yet.
    pub fn new(tools: Arc<Tools>) -> Self {
        let workers = Workers::new(Arc::clone(&tools));
        Self { tools, apps: HashMap::new(), workers, draining: Draining::default() }
    }

    /// Takes a process of an app that requests are led to already.
    pub fn runs(&mut self, app: AppId, instance: Instance, port: u16) {
        let live = Live { instance, port, since: Instant::now(), look_at: None };
        self.apps.entry(app).or_default().live = Some(live);
    }

    /// Works until it is told to stop. A panic is a bug that ends one turn, not
    /// the care for all apps.
    pub fn run(mut self) {
        loop {
            match catch_unwind(AssertUnwindSafe(|| self.turn())) {
                Ok(ControlFlow::Continue(())) => {}
                Ok(ControlFlow::Break(())) => return,
                Err(_) => std::thread::sleep(FIRST_PAUSE),
            }
        }
    }

    fn turn(&mut self) -> ControlFlow<()> {
        while let Some(message) = self.tools.mailbox.take() {
            match message {
                Message::TakeOver(app, process, workers) => self.take_over(app, process, workers),
                Message::GiveWay(app, held_at, told) => self.give_way(app, held_at, told),
                Message::Resume(app, hold) => self.resume(&app, hold),
                Message::Look(app) => self.look(&app),
                Message::Scale(app) => {
                    // Where that is not known now, the next look at the app does it.
                    let app = self.tools.store.app(&app).ok().flatten();
                    app.iter().for_each(|app| self.look_at_workers(app));
                }
                Message::Forget(app) => self.forget(&app),
                // Apps stay as they are, but for those that shall end, and those that had ended for
                // a deploy that comes to nothing now.
                Message::Shutdown => {
                    self.draining.finish(&self.tools);
                    self.start_due();
                    self.workers.start_due(&mut self.draining);
                    self.route_started();
                    return ControlFlow::Break(());
                }
            }
        }
        self.notice_ends();
        self.workers.notice_ends(&mut self.draining);
        self.draining.reap(&self.tools);
        for (id, entry) in &mut self.apps {
            entry.told.take_if(|_| !self.draining.has(id));
        }
        self.start_due();
        self.workers.start_due(&mut self.draining);
        self.route_ready();
        self.wait();
        ControlFlow::Continue(())
    }

    /// Takes what a deploy has made live.
    fn take_over(
        &mut self,
        app: AppId,
        process: Option<(Process, Box<Instance>)>,
        workers: Vec<(Worker, Instance)>,
    ) {
        let tools = Arc::clone(&self.tools);
        let holds = self.holds(&app);
        self.end_live(&app, Why::Replaced);
        // With it goes what was noted for the deploy.
        self.apps.remove(&app);
        tools.board.clear(&app);
        if let Some((process, instance)) = process {
            self.runs(app.clone(), *instance, process.port);
            // Unless that start, or the crash, has changed the route, it is this
            // already.
            tools.router.point(&app, &Target::Process(process.port));
            holds.into_iter().for_each(|hold| hold.lead_to(process.port));
            // Between the switch and this message we may have started the new
            // release ourselves, for a crash of the old one; that was replaced now.
            if let Err(error) = tools.store.set_process(&app, Some(&process)) {
                log::error!("the process of app {app} could not be noted: {error}");
            }
        }
        if !workers.is_empty() {
            // One that was started meanwhile would otherwise run on beside these, unknown.
            self.workers.end(&app, Why::Stopped, &mut self.draining);
        }
        for (worker, instance) in workers {
            if let Err(error) = tools.store.set_worker(&worker) {
                log::error!("{} of app {app} could not be noted: {error}", worker.id);
            }
            self.workers.runs((worker, instance));
        }
        // The owner may have stopped it in the meantime.
        self.look(&app);
    }

    /// Has an app's process end, and no other be started: what waits for one waits in vain. A
    /// deploy that runs it alone goes on to do so.
    fn end_live(&mut self, app: &AppId, why: Why) {
        let Some(entry) = self.apps.get_mut(app) else { return };
        entry.start_at = None;
        entry.holds.clear();
        let Some(Live { instance, port, .. }) = entry.live.take() else { return };
        match why {
            Why::Replaced | Why::GivesWay => {
                self.draining.replace(app, instance, port, why);
            }
            Why::Stopped | Why::Discarded => self.draining.end(app, instance, why),
        }
    }

    /// Has an app's process end before another one is started, by a deploy.
    fn give_way(&mut self, app: AppId, held_at: Option<u16>, told: Sender<()>) {
        // A start of ours may have led requests to it meanwhile.
        if let Some(port) = held_at {
            self.tools.router.point(&app, &Target::Process(port));
        }
        let holds = self.holds(&app);
        if self.apps.get(&app).is_some_and(|entry| entry.live.is_some()) {
            self.tools.journal.note_app(&app, "Stopping, for the next one to start alone.");
        }
        self.end_live(&app, Why::GivesWay);
        self.workers.end(&app, Why::Stopped, &mut self.draining);
        let told = Some(told);
        let entry = Supervised { has_given_way: true, told, holds, ..Supervised::default() };
        self.apps.insert(app, entry);
    }

    /// Has an app's process come back that ended for a deploy which came to nothing: the very
    /// same, where it was not asked to end yet.
    fn resume(&mut self, app: &AppId, hold: Option<Hold>) {
        let entry = self.apps.get_mut(app).filter(|entry| entry.has_given_way);
        let Some(entry) = entry else { return };
        entry.has_given_way = false;
        // Of an app that never comes back they would become ever more.
        let old = entry.holds.len().saturating_sub(MOST_HOLDS - 1);
        entry.holds.drain(..old);
        entry.holds.extend(hold);
        if let Some((instance, port)) = self.draining.take_back(app) {
            self.runs(app.clone(), instance, port);
            // It may not have listened yet when it was to end.
            if let Some(live) = self.apps.get_mut(app).and_then(|entry| entry.live.as_mut()) {
                live.look_at = Some(Instant::now());
            }
        }
        self.look(app);
    }

    /// Takes what waits for an app.
    fn holds(&mut self, app: &AppId) -> Vec<Hold> {
        self.apps.get_mut(app).map(|entry| take(&mut entry.holds)).unwrap_or_default()
    }

    /// Lets an app go that is being removed, or has been.
    fn forget(&mut self, app: &AppId) {
        self.draining.forget(app);
        self.tools.board.clear(app);
        self.end_live(app, Why::Discarded);
        self.apps.remove(app);
        self.workers.end(app, Why::Discarded, &mut self.draining);
    }

    /// Does what the owner wants of an app, now and without a pause.
    fn look(&mut self, id: &AppId) {
        let Tools { store, journal, router, board, .. } = &*Arc::clone(&self.tools);
        let app = match store.app(id) {
            Ok(Some(app)) => app,
            Ok(None) => {
                // It was removed just as a deploy of it went live.
                self.forget(id);
                return router.forget(id);
            }
            Err(error) => return log::error!("app {id} is not looked after: {error}"),
        };
        match app.wanted {
            Wanted::Running => {
                let entry = self.apps.entry(id.clone()).or_default();
                if entry.live.is_none() && app.live_deploy.is_some() && !entry.has_given_way {
                    entry.start_at = Some(Instant::now());
                    board.to_start(id);
                }
            }
            Wanted::Stopped => {
                router.point(id, &Target::Down);
                self.draining.hurry(id);
                board.stopping(id);
                if self.apps.get(id).is_some_and(|entry| entry.live.is_some()) {
                    journal.note_app(id, "Stopping, as its owner wants.");
                }
                self.end_live(id, Why::Stopped);
            }
        }
        self.look_at_workers(&app);
    }

    /// Has those workers of an app run that its owner wants, unless a deploy runs it alone.
    fn look_at_workers(&mut self, app: &App) {
        if !self.apps.get(&app.id).is_some_and(|entry| entry.has_given_way) {
            self.workers.look(app, &mut self.draining);
        }
    }

    /// Takes notice of live processes that have ended by themselves.
    fn notice_ends(&mut self) {
        let Tools { store, router, .. } = &*self.tools;
        for (id, entry) in &mut self.apps {
            let Some(live) = &mut entry.live else { continue };
            let Some(exit) = live.instance.try_wait() else { continue };
            // Before the database, which may be busy: its port is free for others now.
            router.point(id, &Target::Down);
            let app = store.app(id).ok().flatten();
            let how = match app.and_then(|app| app.live_deploy) {
                Some(deploy) => {
                    how_it_ended(&self.tools, (&id.into(), &deploy), &live.instance, exit)
                }
                None => exit.to_string(),
            };
            record_end(store, id, live.instance.pid(), &how);
            let lived = live.since.elapsed();
            entry.start_at = after_end(&self.tools, &id.into(), (exit, &how), lived);
            if entry.start_at.is_none() {
                self.workers.end(id, Why::Stopped, &mut self.draining);
            }
            if let Some(live) = entry.live.take() {
                self.draining.end(id, live.instance, Why::Discarded);
            }
        }
    }

    /// Starts what is due, unless a process of the same app is still ending: two
    /// of them would share `/data`.
    fn start_due(&mut self) {
        let Tools { router, board, .. } = &*self.tools;
        for (id, entry) in &mut self.apps {
            let is_due = entry.start_at.is_some_and(|at| at <= Instant::now());
            if !is_due || self.draining.holds_up(&id.into()) {
                continue;
            }
            entry.start_at = None;
            match start(&self.tools, id) {
                Ok(live) => {
                    // Without one there is nothing to wait for.
                    if live.is_some() {
                        board.started(id)
                    } else {
                        board.clear(id)
                    }
                    entry.live = live;
                }
                Err(why) => {
                    router.point(id, &Target::Down);
                    entry.start_at = Some(after_failure(&self.tools, &id.into(), &why));
                }
            }
        }
    }

    /// Leads requests to those that were started and now listen. Until then the router
    /// answers that the app is down, rather than that something is wrong with it.
    fn route_ready(&mut self) {
        let now = Instant::now();
        let mut all = None;
        for (id, entry) in &mut self.apps {
            let Some(live) = &mut entry.live else { continue };
            if live.look_at.is_none_or(|at| at > now) {
                continue;
            }
            let all = all.get_or_insert_with(listeners);
            if listens(live.port, uid_of(&self.tools, id), &live.instance, all) {
                self.tools.router.point(id, &Target::Process(live.port));
                live.look_at = None;
                self.tools.board.settled(id);
                let port = live.port;
                entry.holds.drain(..).for_each(|hold| hold.lead_to(port));
            } else {
                live.look_at = Some(now + (live.since.elapsed() / 8).clamp(LOOK, SELDOM));
            }
        }
    }

    /// Leads requests to those that do not listen yet: nobody is there to do it when they do.
    fn route_started(&self) {
        for (id, entry) in &self.apps {
            if let Some(live) = entry.live.as_ref().filter(|live| live.look_at.is_some()) {
                self.tools.router.point(id, &Target::Process(live.port));
            }
        }
    }

    /// Waits for a message, an end, or the next thing that is due.
    fn wait(&self) {
        let now = Instant::now();
        let live = || self.apps.values().filter_map(|entry| entry.live.as_ref());
        let starts = self.apps.values().filter_map(|entry| entry.start_at);
        let due = starts.chain(live().filter_map(|live| live.look_at));
        let due = due.chain(self.workers.next_start());
        let mut pause = due.map(|at| at.saturating_duration_since(now)).min().unwrap_or(IDLE);
        if !self.draining.is_empty() {
            pause = pause.min(LOOK);
        }
        // A start that waits for another process to end is looked at with that one.
        let pause = if pause.is_zero() { LOOK } else { pause.min(IDLE) };
        let wake_up = &self.tools.mailbox.wake_up;
        let all = live().map(|live| &live.instance).chain(self.workers.instances());
        let ends = all.map(|instance| instance.as_fd());
        let fds: Vec<_> = ends.chain([wake_up.as_fd()]).collect();
        if let Err(error) = wait_any(&fds, pause) {
            log::error!("the supervisor cannot wait: {error}");
            std::thread::sleep(LOOK);
        }
        wake_up.clear();
    }
}

/// The user that is an app's alone, where there is one.
fn uid_of(Tools { store, host, .. }: &Tools, app: &AppId) -> Option<u32> {
    let slot = store.app(app).ok().flatten()?.slot;
    host.last()?.ok()?.users.outside_uid(slot)
}

/// Starts an app's live release; `None` when it should not run after all.
fn start(tools: &Tools, id: &AppId) -> Result<Option<Live>, AnyError> {
    let app: App = match tools.store.app(id)? {
        Some(app) if app.wanted == Wanted::Running => app,
        _ => return Ok(None),
    };
    let (Some(deploy), Some(release)) = (&app.live_deploy, &app.live_release) else {
        return Ok(None);
    };
    if app.is_static {
        tools.router.point(id, &Target::Files(id.clone(), release.clone()));
    }
    if app.is_static || app.is_workers_only() {
        return Ok(None);
    }
    let (process, instance) = launch(tools, &app, deploy, release)?;
    // Not written is not started: after a restart of the server nobody would know it.
    tools.store.set_process(id, Some(&process))?;
    let since = Instant::now();
    let (port, instance) = (process.port, instance.keep());
    Ok(Some(Live { instance, port, since, look_at: Some(since) }))
}
