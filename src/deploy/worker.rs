//! The thread that deploys: it takes what is asked for out of the queue.

use super::outcome::note_failure;
use super::pipeline::Pipeline;
use super::queue::Queue;
use crate::proc::Cancel;
use crate::store::{Deploy, Store};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::{self, Builder};
use std::time::Duration;

/// How long to wait when the database does not answer, or the system has no thread left.
const TRY_AGAIN: Duration = Duration::from_secs(2);

/// How long to wait when there is nothing to do; requests, ends and build turns wake the worker.
const IDLE: Duration = Duration::from_secs(600);

/// Takes deploys out of the queue and runs them.
pub struct Worker {
    /// What is to be deployed next, and what is being deployed.
    pub queue: Arc<Queue>,
    /// Where requests wait.
    pub store: Arc<Store>,
    /// What runs each of them.
    pub pipeline: Pipeline,
}

impl Worker {
    /// Deploys what is asked for until the server stops, each deploy on a thread of its own:
    /// there are never more of them than apps.
    pub fn run(&self) {
        thread::scope(|scope| {
            while !self.queue.is_closed() {
                let seen = self.queue.wakes();
                let begun = self.take().and_then(|begun| {
                    let Some((queued, cancel)) = begun else { return Ok(false) };
                    let deploy = queued.id.clone();
                    let run = move || self.deploy(&queued, &cancel);
                    let spawned = Builder::new().name("deploy".to_owned()).spawn_scoped(scope, run);
                    // It stays in the queue.
                    spawned.inspect_err(|_| self.queue.end(&deploy)).map_err(|e| e.to_string())?;
                    Ok(true)
                });
                match begun {
                    Ok(true) => {}
                    Ok(false) => self.queue.wait(seen, IDLE),
                    Err(why) => {
                        log::error!("the next deploy could not be taken: {why}");
                        self.queue.pause(TRY_AGAIN);
                    }
                }
            }
        });
    }

    /// The next deploy that may begin, and what cancels it.
    fn take(&self) -> Result<Option<(Deploy, Cancel)>, String> {
        let cancel = Cancel::new().map_err(|e| e.to_string())?;
        let begun = self.queue.begin(&cancel, || self.store.queued());
        Ok(begun.map_err(|e| e.to_string())?.map(|queued| (queued, cancel)))
    }

    /// Runs a deploy to its end. A panic in it is a bug that ends this deploy alone.
    fn deploy(&self, Deploy { app, id: deploy, .. }: &Deploy, cancel: &Cancel) {
        let ran = catch_unwind(AssertUnwindSafe(|| self.pipeline.run(app, deploy, cancel)));
        if ran.is_err() {
            note_failure(
                &self.store,
                &self.queue,
                deploy,
                "the server failed inside; its log says where",
            );
        }
        self.queue.end(deploy);
    }
}
