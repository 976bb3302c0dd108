//! Keeps what should run running: one thread that holds every live app.
//!
//! It hears of changes by messages and of ends through pidfds. What it does follows
//! from two things alone: what the owner wants (in the database) and what runs.

use super::draining::{Draining, LOOK, record_end};
use super::exit_reason::how_it_ended;
use super::health_check::listens;
use super::instance::Instance;
use super::launch::Launcher;
use super::recovery::Found;
use super::status_board::{Backoff, FIRST_PAUSE, StatusBoard};
use super::tcp_sockets::listeners;
use crate::journal::Journal;
use crate::model::{AppId, Wanted};
use crate::proc::{Exit, wait_any};
use crate::router::{Router, Target};
use crate::sandbox::host_watch::HostWatch;
use crate::store::{App, Process, Store};
use crate::sync::EventFd;
use std::collections::HashMap;
use std::io;
use std::ops::ControlFlow;
use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

/// The longest time between two looks at an app that does not listen yet; it grows up
/// to here with the time that the app has taken.
const SELDOM: Duration = Duration::from_secs(2);
/// Time between two looks when nothing is expected.
const IDLE: Duration = Duration::from_secs(60);

/// What the supervisor is told.
#[derive(Debug)]
pub enum Message {
    /// A new release is live in this process; the one before it shall end.
    TakeOver(AppId, Process, Box<Instance>),
    /// A new release without a process is live; the one before it shall end.
    GiveUp(AppId),
    /// What the owner wants may have changed.
    Look(AppId),
    /// The app is being removed.
    Forget(AppId),
    /// The server stops; apps stay.
    Shutdown,
}

/// Tells the supervisor.
#[derive(Debug)]
pub struct Handle {
    messages: Sender<Message>,
    wake_up: Arc<EventFd>,
}

impl Handle {
    /// A handle, and the mailbox that its messages arrive in.
    ///
    /// # Errors
    /// When the process has no descriptor left.
    pub fn new() -> io::Result<(Self, Mailbox)> {
        let (sender, messages) = channel();
        let wake_up = Arc::new(EventFd::new()?);
        Ok((
            Self { messages: sender, wake_up: Arc::clone(&wake_up) },
            Mailbox { messages, wake_up },
        ))
    }

    /// Sends a message. After the supervisor has gone it is lost, as is the server.
    pub fn send(&self, message: Message) {
        let _ = self.messages.send(message);
        self.wake_up.signal();
    }
}

/// Where the supervisor's messages arrive.
#[derive(Debug)]
pub struct Mailbox {
    messages: Receiver<Message>,
    wake_up: Arc<EventFd>,
}

/// A process of a live release.
struct Live {
    instance: Instance,
    /// Where it listens.
    port: u16,
    since: Instant,
    /// Set until it is seen to listen: before that nobody is led to it.
    arriving: Option<Arriving>,
}

/// A process that was started and does not listen yet.
struct Arriving {
    /// The user that is the app's alone, where there is one.
    uid: Option<u32>,
    look_at: Instant,
}

impl Live {
    /// A process that requests are led to already.
    fn there(instance: Instance, port: u16) -> Self {
        Self { instance, port, since: Instant::now(), arriving: None }
    }
}

/// What is known of one app.
#[derive(Default)]
struct Supervised {
    live: Option<Live>,
    /// When to start it, if it is to be started.
    start_at: Option<Instant>,
    /// The pause before the next restart.
    pause: Option<Duration>,
}

/// What the supervisor works with.
pub struct Tools {
    /// What its owner wants of each app, and what runs.
    pub store: Arc<Store>,
    /// The logs of apps.
    pub journal: Arc<Journal>,
    /// What leads requests to apps.
    pub router: Arc<Router>,
    /// What is known of the host.
    pub host: Arc<HostWatch>,
    /// What starts apps.
    pub launcher: Arc<Launcher>,
    /// Where it is told what the supervisor does.
    pub board: Arc<StatusBoard>,
}

/// The supervisor.
pub struct Supervisor {
    tools: Tools,
    mailbox: Mailbox,
    apps: HashMap<AppId, Supervised>,
    draining: Draining,
}

impl Supervisor {
    /// A supervisor with the processes that were found running.
    #[must_use]
    pub fn new(tools: Tools, mailbox: Mailbox, found: Found) -> Self {
        let Found { live, draining } = found;
        let mut supervisor = Self { tools, mailbox, apps: HashMap::new(), draining };
        for (app, port, instance) in live {
            let live = Live::there(instance, port);
            supervisor.apps.insert(app, Supervised { live: Some(live), ..Supervised::default() });
        }
        supervisor
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
        while let Ok(message) = self.mailbox.messages.try_recv() {
            if matches!(message, Message::Shutdown) {
                // Those that shall end get a moment more, all others stay as they are.
                self.draining.finish(&self.tools.store, &self.tools.journal);
                return ControlFlow::Break(());
            }
            self.handle(message);
        }
        self.notice_ends();
        self.draining.reap(&self.tools.store, &self.tools.journal);
        self.start_due();
        self.route_ready();
        self.wait();
        ControlFlow::Continue(())
    }

    fn handle(&mut self, message: Message) {
        match message {
            Message::TakeOver(app, process, instance) => {
                let live = Live::there(*instance, process.port);
                let entry = Supervised { live: Some(live), ..Supervised::default() };
                let old = self.apps.insert(app.clone(), entry);
                self.tools.board.clear(&app);
                if let Some(old) = old.and_then(|entry| entry.live) {
                    self.draining.replace(app.clone(), old.instance, old.port);
                }
                // Unless that start, or the crash, has changed the route, it is this already.
                self.tools.router.point(&app, &Target::Process(process.port));
                // Between the switch and this message we may have started the new
                // release ourselves, for a crash of the old one; that was `old`.
                if let Err(error) = self.tools.store.set_process(&app, Some(&process)) {
                    log::error!("the process of app {app} could not be noted: {error}");
                }
                // The owner may have stopped it in the meantime.
                self.look(&app);
            }
            Message::GiveUp(app) => {
                let old = self.apps.insert(app.clone(), Supervised::default());
                self.tools.board.clear(&app);
                if let Some(old) = old.and_then(|entry| entry.live) {
                    self.draining.replace(app.clone(), old.instance, old.port);
                }
                self.look(&app);
            }
            Message::Look(app) => self.look(&app),
            Message::Forget(app) => self.forget(app),
            Message::Shutdown => {}
        }
    }

    /// Lets an app go that is being removed, or has been.
    fn forget(&mut self, app: AppId) {
        self.draining.forget(&app);
        self.tools.board.clear(&app);
        if let Some(live) = self.apps.remove(&app).and_then(|entry| entry.live) {
            self.draining.discard(app, live.instance);
        }
    }

    /// Does what the owner wants of an app, now and without a pause.
    fn look(&mut self, id: &AppId) {
        let app = match self.tools.store.app(id) {
            Ok(Some(app)) => app,
            Ok(None) => {
                // It was removed just as a deploy of it went live.
                self.forget(id.clone());
                return self.tools.router.forget(id);
            }
            Err(error) => return log::error!("app {id} is not looked after: {error}"),
        };
        let entry = self.apps.entry(id.clone()).or_default();
        entry.pause = None;
        match app.wanted {
            Wanted::Running if entry.live.is_none() && app.live_deploy.is_some() => {
                entry.start_at = Some(Instant::now());
                self.tools.board.to_start(id);
            }
            Wanted::Running => {}
            Wanted::Stopped => {
                entry.start_at = None;
                self.tools.router.point(id, &Target::Down);
                self.draining.hurry(id);
                self.tools.board.stopping(id);
                if let Some(live) = entry.live.take() {
                    self.tools.journal.note_app(id, "Stopping, as its owner wants.");
                    self.draining.stop(id.clone(), live.instance);
                }
            }
        }
    }

    /// Takes notice of live processes that have ended by themselves.
    fn notice_ends(&mut self) {
        for (id, entry) in &mut self.apps {
            let Some(live) = entry.live.as_mut() else { continue };
            let Some(exit) = live.instance.try_wait() else { continue };
            // Before the database, which may be busy: its port is free for others now.
            self.tools.router.point(id, &Target::Down);
            let backoff = Backoff::after(entry.pause, live.since.elapsed());
            let app = self.tools.store.app(id).ok().flatten();
            // As one that was ended for taking a port of the server's.
            let stays = app.as_ref().is_some_and(|app| app.wanted == Wanted::Stopped);
            let deploy = app.and_then(|app| app.live_deploy);
            let how = deploy.map_or_else(
                || exit.to_string(),
                |deploy| {
                    let Tools { store, journal, .. } = &self.tools;
                    how_it_ended(store, journal, (id, &deploy), &live.instance, exit)
                },
            );
            record_end(&self.tools.store, id, live.instance.pid(), &how);
            if !stays {
                self.tools.board.ended(id, &how, backoff);
            }
            let how = match exit {
                Exit::Unknown if how == exit.to_string() => "Ended; how is not known".to_owned(),
                _ => format!("Ended with {how}"),
            };
            let line = if stays {
                format!("{how}.")
            } else {
                format!("{how}; starting it again in {} s.", backoff.pause.as_secs())
            };
            self.tools.journal.note_app(id, &line);
            if let Some(more) = backoff.line_ending(entry.pause) {
                log::info!("app {}: {line}{more}", name(&self.tools.store, id));
            }
            entry.pause = Some(backoff.pause);
            entry.start_at = (!stays).then(|| Instant::now() + backoff.pause);
            if let Some(live) = entry.live.take() {
                self.draining.has_ended(id.clone(), live.instance);
            }
        }
    }

    /// Starts what is due, unless a process of the same app is still ending: two
    /// of them would share `/data`.
    fn start_due(&mut self) {
        let now = Instant::now();
        let due: Vec<AppId> = self
            .apps
            .iter()
            .filter(|(id, entry)| {
                entry.start_at.is_some_and(|at| at <= now) && !self.draining.holds_up(id)
            })
            .map(|(id, _)| id.clone())
            .collect();
        for id in due {
            let Some(entry) = self.apps.get_mut(&id) else { continue };
            entry.start_at = None;
            match self.tools.start(&id) {
                Ok(live) => {
                    entry.live = live;
                    self.tools.board.started(&id);
                }
                Err(why) => {
                    self.tools.router.point(&id, &Target::Down);
                    let before = entry.pause;
                    let backoff = Backoff::after(before, Duration::ZERO);
                    self.tools.board.not_started(&id, &why, backoff);
                    entry.pause = Some(backoff.pause);
                    entry.start_at = Some(now + backoff.pause);
                    if let Some(more) = backoff.line_ending(before) {
                        let app = name(&self.tools.store, &id);
                        log::warn!("app {app} could not be started: {why}.{more}");
                        let seconds = backoff.pause.as_secs();
                        let line = format!("Could not be started: {why}. Next try in {seconds} s.");
                        self.tools.journal.note_app(&id, &line);
                    }
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
            let Some(arriving) = live.arriving.as_mut().filter(|a| a.look_at <= now) else {
                continue;
            };
            let all = all.get_or_insert_with(listeners);
            if listens(live.port, arriving.uid, &live.instance, all) {
                self.tools.router.point(id, &Target::Process(live.port));
                live.arriving = None;
                self.tools.board.settled(id);
            } else {
                arriving.look_at = now + (live.since.elapsed() / 8).clamp(LOOK, SELDOM);
            }
        }
    }

    /// Waits for a message, an end, or the next thing that is due.
    fn wait(&self) {
        let now = Instant::now();
        let arriving = |entry: &Supervised| Some(entry.live.as_ref()?.arriving.as_ref()?.look_at);
        let due = self.apps.values().flat_map(|entry| [entry.start_at, arriving(entry)]).flatten();
        let mut pause = due.map(|at| at.saturating_duration_since(now)).min().unwrap_or(IDLE);
        if !self.draining.is_empty() {
            pause = pause.min(LOOK);
        }
        // A start that waits for another process to end is looked at with that one.
        let pause = if pause.is_zero() { LOOK } else { pause.min(IDLE) };
        let mut fds = vec![self.mailbox.wake_up.as_fd()];
        fds.extend(self.apps.values().filter_map(|s| Some(s.live.as_ref()?.instance.as_fd())));
        if let Err(error) = wait_any(&fds, pause) {
            log::error!("the supervisor cannot wait: {error}");
            std::thread::sleep(LOOK);
        }
        self.mailbox.wake_up.clear();
    }
}

impl Tools {
    /// Starts an app's live release; `None` when it should not run after all.
    fn start(&self, id: &AppId) -> Result<Option<Live>, String> {
        let app: App = match self.store.app(id).map_err(|e| e.to_string())? {
            Some(app) if app.wanted == Wanted::Running => app,
            _ => return Ok(None),
        };
        let (Some(deploy), Some(release)) = (&app.live_deploy, &app.live_release) else {
            return Ok(None);
        };
        if app.is_static {
            self.router.point(id, &Target::Files(id.clone(), release.clone()));
            return Ok(None);
        }
        let uid = self.host.wait()?.users.outside_uid(app.slot);
        let launched = self.launcher.launch(&app, deploy, release)?;
        // Not written is not started: after a restart of the server nobody would know it.
        self.store.set_process(id, Some(launched.process())).map_err(|e| e.to_string())?;
        let (port, since) = (launched.process().port, Instant::now());
        let arriving = Some(Arriving { uid, look_at: since });
        Ok(launched.keep().map(|instance| Live { instance, port, since, arriving }))
    }
}

/// An app's name for the server's log; its identifier when the name is not to be had.
fn name(store: &Store, id: &AppId) -> String {
    let app = store.app(id).ok().flatten();
    app.map_or_else(|| id.to_string(), |app| app.name.as_str().to_owned())
}
