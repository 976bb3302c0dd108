//! Keeps what should run running: one thread that holds every live app.
//!
//! It hears of changes by messages and of ends through pidfds. What it does follows
//! from two things alone: what the owner wants (in the database) and what runs.

use super::draining::{LOOK, Why};
use super::health_check::Who;
use super::hold::Hold;
use super::launched::Launched;
use super::processes::Processes;
use super::status_board::FIRST_PAUSE;
use super::tcp_sockets::listeners;
use super::tools::{Message, Tools};
use crate::model::{AppId, Wanted};
use crate::proc::wait_any;
use crate::router::Target;
use crate::store::App;
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

/// What deploys of an app have to do with its processes.
#[derive(Default)]
struct Deploying {
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
    apps: HashMap<AppId, Deploying>,
    /// The processes that run, are to be started, or are on their way out.
    processes: Processes,
}

impl Supervisor {
    /// One that looks after these.
    pub fn new(tools: Arc<Tools>, processes: Processes) -> Self {
        Self { tools, apps: HashMap::new(), processes }
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
                Message::TakeOver(app, launched) => self.take_over(&app, launched),
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
                    self.processes.draining.finish(&self.tools);
                    self.processes.start_due();
                    self.route_started();
                    return ControlFlow::Break(());
                }
            }
        }
        self.processes.notice_ends();
        self.processes.draining.reap(&self.tools);
        for (id, entry) in &mut self.apps {
            entry.told.take_if(|_| !self.processes.draining.has(id));
        }
        self.processes.start_due();
        self.route_ready();
        self.wait();
        ControlFlow::Continue(())
    }

    /// Takes what a deploy has made live.
    fn take_over(&mut self, app: &AppId, launched: Vec<Launched>) {
        let tools = Arc::clone(&self.tools);
        let holds = self.holds(app);
        self.end_web(app, Why::Replaced);
        // With it goes what was noted for the deploy.
        self.apps.remove(app);
        self.processes.all.remove(&app.into());
        tools.board.clear(app);
        if launched.iter().any(|one| !one.id.is_web()) {
            // One that was started meanwhile would otherwise run on beside these, unknown.
            self.processes.end_workers(app, Why::Stopped);
        }
        if let Some(port) = launched.iter().find_map(|one| one.port) {
            // Unless that start, or the crash, has changed the route, it is this
            // already.
            tools.router.point(app, &Target::Process(port));
            holds.into_iter().for_each(|hold| hold.lead_to(port));
        }
        for one in launched {
            // Between the switch and this message we may have started the new
            // release ourselves, for a crash of the old one; that was replaced now.
            if let Err(error) = one.note(&tools.store) {
                log::error!("{} of app {app} could not be noted: {error}", one.id);
            }
            self.processes.runs(one, None);
        }
        // The owner may have stopped it in the meantime.
        self.look(app);
    }

    /// Has the process end that an app's requests go to, and no other be started: what waits for
    /// one waits in vain. A deploy that runs it alone goes on to do so.
    fn end_web(&mut self, app: &AppId, why: Why) {
        if let Some(entry) = self.apps.get_mut(app) {
            entry.holds.clear();
        }
        let Some(web) = self.processes.all.get_mut(&app.into()) else { return };
        (web.start_at, web.look_at) = (None, None);
        let Some(instance) = web.instance.take() else { return };
        match (why, web.port) {
            (Why::Replaced | Why::GivesWay, Some(port)) => {
                self.processes.draining.replace(app, instance, port, why);
            }
            _ => self.processes.draining.end(app, instance, why),
        }
    }

    /// Has an app's process end before another one is started, by a deploy.
    fn give_way(&mut self, app: AppId, held_at: Option<u16>, told: Sender<()>) {
        // A start of ours may have led requests to it meanwhile.
        if let Some(port) = held_at {
            self.tools.router.point(&app, &Target::Process(port));
        }
        let holds = self.holds(&app);
        if self.processes.has_web(&app) {
            self.tools.journal.note_app(&app, "Stopping, for the next one to start alone.");
        }
        self.end_web(&app, Why::GivesWay);
        self.processes.end_workers(&app, Why::Stopped);
        self.apps.insert(app, Deploying { has_given_way: true, told: Some(told), holds });
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
        if let Some(web) = self.processes.all.get_mut(&app.into())
            && let Some(instance) = self.processes.draining.take_back(app)
        {
            // It may not have listened yet when it was to end.
            (web.instance, web.look_at) = (Some(instance), Some(Instant::now()));
        }
        self.look(app);
    }

    /// Takes what waits for an app.
    fn holds(&mut self, app: &AppId) -> Vec<Hold> {
        self.apps.get_mut(app).map(|entry| take(&mut entry.holds)).unwrap_or_default()
    }

    /// Lets an app go that is being removed, or has been.
    fn forget(&mut self, app: &AppId) {
        self.processes.draining.forget(app);
        self.tools.board.clear(app);
        self.end_web(app, Why::Discarded);
        self.apps.remove(app);
        self.processes.all.remove(&app.into());
        self.processes.end_workers(app, Why::Discarded);
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
        match (app.wanted, &app.live_deploy) {
            (Wanted::Running, Some(deploy)) => {
                if !self.processes.has_web(id) && !self.has_given_way(id) {
                    self.processes.begin(id.into(), deploy);
                }
            }
            (Wanted::Running, None) => {}
            (Wanted::Stopped, _) => {
                router.point(id, &Target::Down);
                self.processes.draining.hurry(id);
                board.stopping(id);
                if self.processes.has_web(id) {
                    journal.note_app(id, "Stopping, as its owner wants.");
                }
                self.end_web(id, Why::Stopped);
            }
        }
        self.look_at_workers(&app);
    }

    /// Has those workers of an app run that its owner wants, unless a deploy runs it alone.
    fn look_at_workers(&mut self, app: &App) {
        if !self.has_given_way(&app.id) {
            self.processes.look(app);
        }
    }

    fn has_given_way(&self, app: &AppId) -> bool {
        self.apps.get(app).is_some_and(|entry| entry.has_given_way)
    }

    /// Leads requests to those that were started and now listen. Until then the router
    /// answers that the app is down, rather than that something is wrong with it.
    fn route_ready(&mut self) {
        let now = Instant::now();
        let mut all = None;
        for (id, web) in &mut self.processes.all {
            let (Some(instance), Some(port), Some(at)) = (&web.instance, web.port, web.look_at)
            else {
                continue;
            };
            if at > now {
                continue;
            }
            let all = all.get_or_insert_with(listeners);
            let uid = uid_of(&self.tools, &id.app);
            if Who::listens(port, uid, instance, all) == Who::TheApp {
                self.tools.router.point(&id.app, &Target::Process(port));
                web.look_at = None;
                self.tools.board.settled(id.clone());
                let entry = self.apps.get_mut(&id.app);
                let holds = entry.map(|entry| take(&mut entry.holds)).unwrap_or_default();
                holds.into_iter().for_each(|hold| hold.lead_to(port));
            } else {
                web.look_at = Some(now + (web.since.elapsed() / 8).clamp(LOOK, SELDOM));
            }
        }
    }

    /// Leads requests to those that do not listen yet: nobody is there to do it when they do.
    fn route_started(&self) {
        for (id, web) in &self.processes.all {
            if let Some(port) = web.port.filter(|_| web.look_at.is_some()) {
                self.tools.router.point(&id.app, &Target::Process(port));
            }
        }
    }

    /// Waits for a message, an end, or the next thing that is due.
    fn wait(&self) {
        let now = Instant::now();
        let all = self.processes.all.values();
        let due = all.clone().flat_map(|one| [one.start_at, one.look_at]).flatten();
        let mut pause = due.map(|at| at.saturating_duration_since(now)).min().unwrap_or(IDLE);
        if !self.processes.draining.is_empty() {
            pause = pause.min(LOOK);
        }
        // A start that waits for another process to end is looked at with that one.
        let pause = if pause.is_zero() { LOOK } else { pause.min(IDLE) };
        let wake_up = &self.tools.mailbox.wake_up;
        let ends = all.filter_map(|one| Some(one.instance.as_ref()?.as_fd()));
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
