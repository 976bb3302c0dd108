//! The one thread that deploys: one at a time, the oldest request first.

use super::deployer::{Shared, lock};
use crate::model::{AppId, DeployId};
use crate::proc::Cancel;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

/// How long the worker waits when the database does not answer.
const TRY_AGAIN: Duration = Duration::from_secs(2);

/// How often files that could not be removed are tried again.
const CLEAN_UP: Duration = Duration::from_secs(600);

/// What is being deployed, and whether there is more.
#[derive(Default)]
pub struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    woken: bool,
    /// Why no further deploy begins, once that is so.
    closed: Option<&'static str>,
    current: Option<Current>,
}

struct Current {
    app: AppId,
    cancel: Cancel,
    why: Option<&'static str>,
}

impl Queue {
    /// Says that there may be something to do.
    pub fn wake(&self) {
        lock(&self.state).woken = true;
        self.changed.notify_all();
    }

    /// Ends the deploy under way, and begins no other.
    pub fn close(&self, why: &'static str) {
        let mut state = lock(&self.state);
        state.closed = Some(why);
        if let Some(current) = state.current.as_mut() {
            current.stop(why);
        }
        self.changed.notify_all();
    }

    /// Ends the deploy under way if it is of this app.
    pub fn cancel(&self, app: &AppId, why: &'static str) {
        let mut state = lock(&self.state);
        if let Some(current) = state.current.as_mut().filter(|c| c.app == *app) {
            current.stop(why);
        }
    }

    /// Waits until no deploy of this app is under way, at most this long.
    pub fn wait_until_free_of(&self, app: &AppId, at_most: Duration) {
        let busy = |state: &mut State| state.current.as_ref().is_some_and(|c| c.app == *app);
        let waited = self.changed.wait_timeout_while(lock(&self.state), at_most, busy);
        if waited.is_ok_and(|(_, timeout)| timeout.timed_out()) {
            log::warn!("a deploy of app {app} does not end; the app is removed all the same");
        }
    }

    /// Does `work`, which makes a deploy final, unless the deploy was cancelled: after
    /// a cancellation nothing goes live, and after going live nothing is cancelled.
    pub fn unless_cancelled<T>(&self, cancel: &Cancel, work: impl FnOnce() -> T) -> Option<T> {
        let _held = lock(&self.state);
        if cancel.is_cancelled() { None } else { Some(work()) }
    }

    /// Why the deploy under way was cancelled.
    pub fn reason(&self) -> &'static str {
        let state = lock(&self.state);
        state.current.as_ref().and_then(|c| c.why).unwrap_or("cancelled")
    }

    fn begin(&self, app: &AppId, cancel: &Cancel) {
        let mut state = lock(&self.state);
        let mut current = Current { app: app.clone(), cancel: cancel.clone(), why: None };
        if let Some(why) = state.closed {
            current.stop(why);
        }
        state.current = Some(current);
    }

    fn end(&self) {
        lock(&self.state).current = None;
        self.changed.notify_all();
    }

    /// Whether the server stops.
    pub fn is_closed(&self) -> bool {
        lock(&self.state).closed.is_some()
    }

    /// Waits until there may be something to do; `false` when there is nothing more, ever.
    fn wait(&self, at_most: Duration) -> bool {
        let until = Instant::now() + at_most;
        let mut state = lock(&self.state);
        while state.closed.is_none() && !state.woken {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            state = match self.changed.wait_timeout(state, left) {
                Ok((state, _)) => state,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
        state.woken = false;
        state.closed.is_none()
    }
}

impl Current {
    fn stop(&mut self, why: &'static str) {
        self.why.get_or_insert(why);
        self.cancel.cancel();
    }
}

impl Shared {
    /// Deploys what is asked for until the server stops, and removes files meanwhile.
    pub fn work(&self) {
        let mut pause = Duration::ZERO;
        while self.queue.wait(pause) {
            pause = CLEAN_UP;
            while !self.queue.is_closed() {
                match self.store.next_queued() {
                    Ok(Some(deploy)) => self.take(&deploy.app, &deploy.id),
                    Ok(None) => break,
                    Err(error) => {
                        log::error!("the next deploy could not be read: {error}");
                        pause = TRY_AGAIN;
                        break;
                    }
                }
            }
            if !self.queue.is_closed() {
                self.places.empty_trash(&|| !self.queue.is_closed());
            }
        }
    }

    /// Runs one deploy to its end. A panic in it is a bug that ends this deploy alone.
    fn take(&self, app: &AppId, deploy: &DeployId) {
        let cancel = match Cancel::new() {
            Ok(cancel) => cancel,
            Err(error) => {
                let sentence = format!("the server has no file descriptor left: {error}");
                return self.fail(deploy, &sentence);
            }
        };
        self.queue.begin(app, &cancel);
        let ran = catch_unwind(AssertUnwindSafe(|| super::run(self, app, deploy, &cancel)));
        if ran.is_err() {
            self.fail(deploy, "the server failed inside; its log says where");
        }
        self.queue.end();
    }

    /// Ends a deploy with a sentence that holds no secret.
    pub fn fail(&self, deploy: &DeployId, sentence: &str) {
        if let Err(error) = self.store.fail_deploy(deploy, sentence) {
            log::error!("deploy {deploy} failed ({sentence}), which could not be noted: {error}");
            // It would be taken from the queue again at once, for ever.
            std::thread::sleep(TRY_AGAIN);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn app(name: &str) -> AppId {
        AppId::parse(name).unwrap()
    }

    #[test]
    fn a_cancelled_deploy_does_not_go_live_and_a_live_one_is_not_cancelled() {
        let (queue, cancel) = (Queue::default(), Cancel::new().unwrap());
        queue.begin(&app("aaaaaaaaaa"), &cancel);
        queue.cancel(&app("bbbbbbbbbb"), "another app's");
        assert_eq!(queue.unless_cancelled(&cancel, || 1), Some(1));
        queue.cancel(&app("aaaaaaaaaa"), "stopped");
        queue.cancel(&app("aaaaaaaaaa"), "a later reason");
        assert_eq!(queue.unless_cancelled(&cancel, || 1), None);
        assert_eq!(queue.reason(), "stopped");
    }

    #[test]
    fn once_closed_nothing_begins_and_nobody_waits() {
        let queue = Queue::default();
        let (first, second) = (Cancel::new().unwrap(), Cancel::new().unwrap());
        queue.begin(&app("aaaaaaaaaa"), &first);
        queue.close("the server stops");
        assert!(first.is_cancelled() && queue.is_closed());
        queue.end();
        queue.begin(&app("aaaaaaaaaa"), &second);
        assert!(second.is_cancelled(), "one that slipped in is cancelled too");
        assert_eq!(queue.reason(), "the server stops");
        assert!(!queue.wait(Duration::from_secs(600)));
    }

    #[test]
    fn a_wake_is_not_lost_and_a_removal_waits_for_its_deploy() {
        let queue = Queue::default();
        queue.wake();
        assert!(queue.wait(Duration::from_secs(600)));
        queue.begin(&app("aaaaaaaaaa"), &Cancel::new().unwrap());
        queue.wait_until_free_of(&app("bbbbbbbbbb"), Duration::from_secs(600));
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| {
                queue.wait_until_free_of(&app("aaaaaaaaaa"), Duration::from_secs(600));
            });
            assert!(!waiter.is_finished());
            queue.end();
        });
    }
}
