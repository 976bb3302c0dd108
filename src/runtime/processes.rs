//! The processes of all apps that run or are to be started: of each app the one that requests go
//! to, and as many workers of each name as its owner wants.
//!
//! Which workers should run follows from the database alone, which is looked at again before each
//! start: so it does not matter in which order news of a switch, a crash and a wish arrive.
//! Those of an earlier release have ended before any of the next one is started.

use super::draining::{Draining, Why, record_end};
use super::exit_reason::how_it_ended;
use super::instance::Instance;
use super::launch::{launch, live_spec, port_of, workers_of};
use super::launched::Launched;
use super::restart::{after_end, after_failure};
use super::tools::{Message, Tools};
use crate::model::{AnyError, AppId, DeployId, ProcessId, Wanted};
use crate::router::Target;
use crate::store::App;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

/// A process that runs, or is to be started, or has ended for a deploy that may give it back.
pub struct Supervised {
    /// The deploy whose release it is of.
    pub deploy: DeployId,
    /// `None` until it is started.
    pub instance: Option<Instance>,
    /// Where it is to listen; a worker does not.
    pub port: Option<u16>,
    /// Since when it runs.
    pub since: Instant,
    /// When to start it, if it is to be started.
    pub start_at: Option<Instant>,
    /// When to look whether it listens, until it does: before that nobody is led to it.
    pub look_at: Option<Instant>,
}

/// The processes of all apps.
pub struct Processes {
    tools: Arc<Tools>,
    /// They, by what they are called.
    pub all: HashMap<ProcessId, Supervised>,
    /// Those on their way out.
    pub draining: Draining,
}

impl Processes {
    /// None yet.
    pub fn new(tools: Arc<Tools>) -> Self {
        Self { tools, all: HashMap::new(), draining: Draining::default() }
    }

    /// Takes one that runs, and that requests are led to already, or when it listens.
    pub fn runs(&mut self, launched: Launched, look_at: Option<Instant>) {
        let Launched { id, deploy, port, instance, .. } = launched;
        self.tools.board.started(id.clone());
        if look_at.is_none() {
            self.tools.board.settled(id.clone());
        }
        let (instance, since) = (Some(instance), Instant::now());
        let one = Supervised { deploy, instance, port, since, start_at: None, look_at };
        self.all.insert(id, one);
    }

    /// Has one started, now.
    pub fn begin(&mut self, id: ProcessId, deploy: &DeployId) {
        self.tools.board.to_start(id.clone());
        let (deploy, now) = (deploy.clone(), Instant::now());
        let (instance, port, look_at) = (None, None, None);
        let one = Supervised { deploy, instance, port, since: now, start_at: Some(now), look_at };
        self.all.insert(id, one);
    }

    /// Whether the process of an app runs that requests go to.
    pub fn has_web(&self, app: &AppId) -> bool {
        self.all.get(&app.into()).is_some_and(|web| web.instance.is_some())
    }

    /// Ends those workers of an app that should not run, and has those started that should.
    pub fn look(&mut self, app: &App) {
        let live = app.live_deploy.as_ref().filter(|_| app.wanted == Wanted::Running);
        let Some(deploy) = live else { return self.end_workers(&app.id, Why::Stopped) };
        // Where nobody can tell what should run, what does goes on.
        let Some(spec) = live_spec(&self.tools, app) else { return };
        let wanted = workers_of(app, &spec);
        self.end_unless(&app.id, Why::Stopped, |id, worker| {
            worker.deploy == *deploy && wanted.iter().any(|(one, _)| one == id)
        });
        for (id, _) in wanted {
            if !self.all.contains_key(&id) {
                self.begin(id, deploy);
            }
        }
    }

    /// Ends all workers of an app.
    pub fn end_workers(&mut self, app: &AppId, why: Why) {
        self.end_unless(app, why, |_, _| false);
    }

    fn end_unless(
        &mut self,
        app: &AppId,
        why: Why,
        stays: impl Fn(&ProcessId, &Supervised) -> bool,
    ) {
        let ends = |id: &ProcessId, one: &mut Supervised| {
            id.app == *app && !id.is_web() && !stays(id, one)
        };
        for (id, worker) in self.all.extract_if(ends) {
            if let Some(instance) = worker.instance {
                self.tools.board.stopping(id.clone());
                self.draining.end(id, instance, why);
            } else {
                self.tools.board.clear(id);
            }
        }
    }

    /// Takes notice of those that have ended by themselves.
    pub fn notice_ends(&mut self) {
        let Tools { store, router, mailbox, .. } = &*self.tools;
        for (id, one) in &mut self.all {
            let Some(exit) = one.instance.as_mut().and_then(Instance::try_wait) else { continue };
            let Some(instance) = one.instance.take() else { continue };
            if id.is_web() {
                // Before the database, which may be busy: its port is free for others now.
                router.point(&id.app, &Target::Down);
            }
            let how = how_it_ended(&self.tools, (id, &one.deploy), &instance, exit);
            if id.is_web() {
                record_end(store, &id.app, instance.pid(), &how);
            }
            let again = after_end(&self.tools, id, (exit, &how), one.since.elapsed());
            if again.is_none() {
                // It is not wanted, and that goes for all of the app.
                mailbox.send(Message::Look(id.app.clone()));
            }
            (one.start_at, one.look_at) = (again, None);
            self.draining.end(id.clone(), instance, Why::Discarded);
        }
    }

    /// Starts what is due, unless another process of the same app is still ending: two of them
    /// would share `/data`.
    pub fn start_due(&mut self) {
        let now = Instant::now();
        let is_due = |one: &Supervised| one.start_at.is_some_and(|at| at <= now);
        let due = self.all.iter().filter(|(id, one)| is_due(one) && !self.draining.holds_up(id));
        let mut due: Vec<_> = due.map(|(id, _)| id.clone()).collect();
        // Those first for which visitors wait.
        due.sort_by_key(|id| !id.is_web());
        for id in due {
            match self.start(&id) {
                Ok(Some(launched)) => {
                    let look_at = launched.port.map(|_| now);
                    self.runs(launched, look_at);
                }
                // It waits for one of an earlier release.
                Ok(None) if self.draining.holds_up(&id) => {}
                Ok(None) => {
                    self.all.remove(&id);
                    self.tools.board.clear(id);
                }
                Err(why) => {
                    if id.is_web() {
                        self.tools.router.point(&id.app, &Target::Down);
                    }
                    let at = after_failure(&self.tools, &id, &why);
                    self.all.entry(id).and_modify(|one| one.start_at = Some(at));
                }
            }
        }
    }

    /// Starts one; `None` when it should not run after all, or not yet.
    fn start(&mut self, id: &ProcessId) -> Result<Option<Launched>, AnyError> {
        let tools = &*Arc::clone(&self.tools);
        let app = tools.store.app(&id.app)?.filter(|app| app.wanted == Wanted::Running);
        let Some(app) = app else {
            // It was removed, or had taken a port of the server's: all of it ends.
            tools.mailbox.send(Message::Look(id.app.clone()));
            return Ok(None);
        };
        let Some(live) = app.live_deploy.as_ref().zip(app.live_release.as_ref()) else {
            return Ok(None);
        };
        let mut port = None;
        if id.is_web() {
            if app.is_static {
                let files = Target::Files(app.id.clone(), live.1.clone());
                tools.router.point(&app.id, &files);
            }
            if app.is_static || app.is_workers_only() {
                return Ok(None);
            }
            port = Some(port_of(tools, &app)?);
        } else {
            // A release may have gone live of which the message has not come yet.
            self.look(&app);
            if !self.all.contains_key(id) || self.draining.holds_up(id) {
                return Ok(None);
            }
        }
        let mut launched = launch(tools, &app, live, id, port)?;
        // Not written is not started: after a restart of the server nobody would know it.
        launched.note(&tools.store)?;
        launched.instance.keep();
        Ok(Some(launched))
    }
}
