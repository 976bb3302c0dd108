//! Processes without a port: the workers of all apps, as many of each name as their owners want.
//!
//! Which of them should run follows from the database alone, which is looked at again before each
//! start: so it does not matter in which order news of a switch, a crash and a wish arrive.
//! Those of an earlier release have ended before any of the next one is started.

use super::draining::{Draining, Why};
use super::exit_reason::how_it_ended;
use super::instance::Instance;
use super::launch::{launch_worker, live_spec, workers_of};
use super::restart::{after_end, after_failure};
use super::tools::{Message, Tools};
use crate::model::{AnyError, AppId, DeployId, ProcessId, Wanted};
use crate::store::{self, App};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

/// One that runs, or is to be started.
struct Worker {
    /// The deploy whose release it is of.
    deploy: DeployId,
    /// `None` until it is started.
    instance: Option<Instance>,
    /// Since when it runs, or when to start it.
    at: Instant,
}

/// The workers of all apps.
pub struct Workers {
    tools: Arc<Tools>,
    all: HashMap<ProcessId, Worker>,
}

impl Workers {
    /// None yet.
    pub fn new(tools: Arc<Tools>) -> Self {
        Self { tools, all: HashMap::new() }
    }

    /// Takes one that runs.
    pub fn runs(&mut self, (worker, instance): (store::Worker, Instance)) {
        self.tools.board.started(worker.id.clone());
        self.tools.board.settled(worker.id.clone());
        let (deploy, at) = (worker.deploy, Instant::now());
        self.all.insert(worker.id, Worker { deploy, instance: Some(instance), at });
    }

    /// Ends those of an app that should not run, and has those started that should.
    pub fn look(&mut self, app: &App, draining: &mut Draining) {
        let live = app.live_deploy.as_ref().filter(|_| app.wanted == Wanted::Running);
        let Some(deploy) = live else { return self.end(&app.id, Why::Stopped, draining) };
        // Where nobody can tell what should run, what does goes on.
        let Some(spec) = live_spec(&self.tools, app) else { return };
        let wanted = workers_of(app, &spec);
        self.end_unless(&app.id, Why::Stopped, draining, |id, worker| {
            worker.deploy == *deploy && wanted.iter().any(|(one, _)| one == id)
        });
        for (id, _) in wanted {
            self.all.entry(id).or_insert_with_key(|id| {
                self.tools.board.to_start(id.clone());
                Worker { deploy: deploy.clone(), instance: None, at: Instant::now() }
            });
        }
    }

    /// Ends all of an app.
    pub fn end(&mut self, app: &AppId, why: Why, draining: &mut Draining) {
        self.end_unless(app, why, draining, |_, _| false);
    }

    fn end_unless(
        &mut self,
        app: &AppId,
        why: Why,
        draining: &mut Draining,
        stays: impl Fn(&ProcessId, &Worker) -> bool,
    ) {
        for (id, worker) in self.all.extract_if(|id, it| id.app == *app && !stays(id, it)) {
            if let Some(instance) = worker.instance {
                self.tools.board.stopping(id.clone());
                draining.end(id, instance, why);
            } else {
                self.tools.board.clear(id);
            }
        }
    }

    /// Takes notice of those that have ended by themselves.
    pub fn notice_ends(&mut self, draining: &mut Draining) {
        for (id, worker) in &mut self.all {
            let Some(mut instance) = worker.instance.take() else { continue };
            if let Some(exit) = instance.try_wait() {
                let how = how_it_ended(&self.tools, (id, &worker.deploy), &instance, exit);
                let again = after_end(&self.tools, id, (exit, &how), worker.at.elapsed());
                // The start finds that it is not wanted, and that goes for all of the app.
                worker.at = again.unwrap_or_else(Instant::now);
                draining.end(id.clone(), instance, Why::Discarded);
            } else {
                worker.instance = Some(instance);
            }
        }
    }

    /// Starts what is due, unless another worker of the same app is still ending.
    pub fn start_due(&mut self, draining: &mut Draining) {
        let is_due = |worker: &Worker| worker.instance.is_none() && worker.at <= Instant::now();
        let due = self.all.iter().filter(|(id, worker)| is_due(worker) && !draining.holds_up(id));
        for id in due.map(|(id, _)| id.clone()).collect::<Vec<_>>() {
            match self.start(&id, draining) {
                Ok(started) => started.into_iter().for_each(|one| self.runs(one)),
                Err(why) => {
                    let at = after_failure(&self.tools, &id, &why);
                    self.all.entry(id).and_modify(|worker| worker.at = at);
                }
            }
        }
    }

    /// Starts one; `None` when it should not run after all, or not yet.
    fn start(
        &mut self,
        id: &ProcessId,
        draining: &mut Draining,
    ) -> Result<Option<(store::Worker, Instance)>, AnyError> {
        let app = self.tools.store.app(&id.app)?.filter(|app| app.wanted == Wanted::Running);
        let Some(app) = app else {
            // It was removed, or had taken a port of the server's: all of it ends.
            self.tools.mailbox.send(Message::Look(id.app.clone()));
            return Ok(None);
        };
        // A release may have gone live of which the message has not come yet.
        self.look(&app, draining);
        let live = app.live_deploy.as_ref().zip(app.live_release.as_ref());
        let Some(live) = live.filter(|_| self.all.contains_key(id) && !draining.holds_up(id))
        else {
            return Ok(None);
        };
        let (worker, instance) = launch_worker(&self.tools, &app, live, id)?;
        // Not written is not started, as with the process that has the port.
        self.tools.store.set_worker(&worker)?;
        Ok(Some((worker, instance.keep())))
    }

    /// When the next one is to be started.
    pub fn next_start(&self) -> Option<Instant> {
        self.all.values().filter(|worker| worker.instance.is_none()).map(|worker| worker.at).min()
    }

    /// Those that run.
    pub fn instances(&self) -> impl Iterator<Item = &Instance> {
        self.all.values().filter_map(|worker| worker.instance.as_ref())
    }
}
