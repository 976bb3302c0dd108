//! The threads that deploy: one deploy at a time of each app, the oldest request
//! first, and one build at a time of all.

use super::deployer::Shared;
use super::prune::Removal;
use crate::model::{AppId, DeployId};
use crate::proc::Cancel;
use crate::store::Queued;
use crate::sync::{lock, wait_until, wait_while};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// Deploys that run beside one another. Most of a deploy is waiting, for a Git host or
/// for an app that starts; builds, which are work, go one after the other.
const DEPLOYS: usize = 4;

/// One more than that, for rollbacks: they neither fetch nor build, and whoever needs one
/// has no time for the builds of others.
pub const WORKERS: usize = DEPLOYS + 1;

/// How long a worker waits when the database does not answer.
const TRY_AGAIN: Duration = Duration::from_secs(2);

/// How long a worker waits when there is nothing to do; whoever has something wakes it.
const IDLE: Duration = Duration::from_secs(600);

/// What is being deployed, and whether there is more.
#[derive(Default)]
pub struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Counts the reasons to look for something to do.
    wakes: u64,
    /// Why no further deploy begins, once that is so.
    closed: Option<&'static str>,
    current: Vec<Current>,
    building: bool,
    removals: Vec<Removal>,
    garbage: bool,
}

struct Current {
    app: AppId,
    is_rollback: bool,
    cancel: Cancel,
    why: Option<&'static str>,
}

/// The right to build; given back when dropped.
pub struct BuildTurn<'a>(&'a Queue);

impl Queue {
    /// Says that there may be something to do.
    pub fn wake(&self) {
        self.state().wakes += 1;
        self.changed.notify_all();
    }

    /// Ends the deploys under way, and begins no other.
    pub fn close(&self, why: &'static str) {
        let mut state = self.state();
        state.closed = Some(why);
        state.current.iter_mut().for_each(|current| current.stop(why));
        self.changed.notify_all();
    }

    /// Ends the deploy of this app that is under way, if there is one.
    pub fn cancel(&self, app: &AppId, why: &'static str) {
        let mut state = self.state();
        state.current.iter_mut().filter(|c| c.app == *app).for_each(|c| c.stop(why));
        // It may be waiting for its turn to build.
        self.changed.notify_all();
    }

    /// Has the rest of an app's removal done, as soon as no deploy of it is under way.
    pub fn remove_later(&self, removal: Removal) {
        let mut state = self.state();
        state.removals.push(removal);
        state.garbage = true;
        self.changed.notify_all();
    }

    /// Has what was put aside removed now.
    pub fn tidy(&self) {
        self.state().garbage = true;
        self.changed.notify_all();
    }

    /// The removals that can be finished now.
    pub fn removals(&self) -> Vec<Removal> {
        let mut state = self.state();
        let State { removals, current, .. } = &mut *state;
        let is_free = |r: &mut Removal| !current.iter().any(|c| c.app == r.app);
        removals.extract_if(.., is_free).collect()
    }

    /// Does `work`, which makes a deploy final, unless the deploy was cancelled: after
    /// a cancellation nothing goes live, and after going live nothing is cancelled.
    pub fn unless_cancelled<T>(&self, cancel: &Cancel, work: impl FnOnce() -> T) -> Option<T> {
        let _held = self.state();
        if cancel.is_cancelled() { None } else { Some(work()) }
    }

    /// Waits for the turn to build; `None` when the deploy was cancelled meanwhile.
    /// `on_wait` is called once if another app is building.
    pub fn build_turn(&self, cancel: &Cancel, on_wait: impl FnOnce()) -> Option<BuildTurn<'_>> {
        if self.state().building {
            on_wait();
        }
        let is_busy = |state: &mut State| state.building && !cancel.is_cancelled();
        let mut state = wait_while(&self.changed, self.state(), is_busy);
        if cancel.is_cancelled() {
            return None;
        }
        state.building = true;
        Some(BuildTurn(self))
    }

    /// Why the deploy of this app that is under way was cancelled.
    pub fn reason(&self, app: &AppId) -> &'static str {
        let state = self.state();
        let current = state.current.iter().find(|c| c.app == *app);
        current.and_then(|c| c.why).unwrap_or("cancelled")
    }

    /// Whether the server stops.
    pub fn is_closed(&self) -> bool {
        self.state().closed.is_some()
    }

    /// Waits until files may be there to remove; `false` when the server stops.
    pub fn wait_for_garbage(&self, at_most: Duration) -> bool {
        let mut state = self.wait_while(at_most, |state| !state.garbage);
        state.garbage = false;
        state.closed.is_none()
    }

    /// Takes the first of these requests, oldest first, whose app has no deploy under way;
    /// only a rollback when as many others as may are under way.
    fn begin<T>(
        &self,
        cancel: &Cancel,
        requests: impl FnOnce() -> Result<Vec<Queued>, T>,
    ) -> Result<Option<Queued>, T> {
        let mut state = self.state();
        if state.closed.is_some() {
            return Ok(None);
        }
        // Asked for while we hold the lock: no other worker takes the same one.
        let full = state.current.iter().filter(|c| !c.is_rollback).count() >= DEPLOYS;
        let may = |request: &Queued| {
            (request.is_rollback || !full) && !state.current.iter().any(|c| c.app == request.app)
        };
        let Some(request) = requests()?.into_iter().find(may) else { return Ok(None) };
        let (app, is_rollback) = (request.app.clone(), request.is_rollback);
        state.current.push(Current { app, is_rollback, cancel: cancel.clone(), why: None });
        Ok(Some(request))
    }

    fn end(&self, app: &AppId) {
        let mut state = self.state();
        state.current.retain(|c| c.app != *app);
        // Another request of the same app may have waited for this.
        state.wakes += 1;
        state.garbage = true;
        self.changed.notify_all();
    }

    /// Waits until there may be something to do that was not there at `seen` wakes.
    fn wait(&self, seen: u64, at_most: Duration) {
        drop(self.wait_while(at_most, |state| state.wakes == seen));
    }

    /// Does `work` again and again until it succeeds; a server that stops leaves it to
    /// the next one.
    fn insist(&self, pause: Duration, mut work: impl FnMut() -> bool) {
        while !work() && self.wait_while(pause, |_| true).closed.is_none() {}
    }

    fn wait_while(
        &self,
        at_most: Duration,
        nothing: impl Fn(&State) -> bool,
    ) -> MutexGuard<'_, State> {
        let wants = |state: &mut State| state.closed.is_none() && nothing(state);
        wait_until(Instant::now() + at_most, &self.changed, self.state(), wants)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl Drop for BuildTurn<'_> {
    fn drop(&mut self) {
        self.0.state().building = false;
        self.0.changed.notify_all();
    }
}

impl Current {
    fn stop(&mut self, why: &'static str) {
        self.why.get_or_insert(why);
        self.cancel.cancel();
    }
}

impl Shared {
    /// Deploys what is asked for until the server stops.
    pub fn work(&self) {
        while !self.queue.is_closed() {
            let seen = self.queue.state().wakes;
            match self.take() {
                Ok(true) => {}
                Ok(false) => self.queue.wait(seen, IDLE),
                Err(why) => {
                    log::error!("the next deploy could not be taken: {why}");
                    self.queue.wait(seen, TRY_AGAIN);
                }
            }
        }
    }

    /// Runs the next deploy to its end; `false` when there is none. A panic in it is a
    /// bug that ends this deploy alone.
    fn take(&self) -> Result<bool, String> {
        let cancel = Cancel::new().map_err(|e| e.to_string())?;
        let begun = self.queue.begin(&cancel, || self.store.queued());
        let begun = begun.map_err(|e| e.to_string())?;
        let Some(Queued { app, deploy, .. }) = begun else { return Ok(false) };
        let ran = catch_unwind(AssertUnwindSafe(|| super::run(self, &app, &deploy, &cancel)));
        if ran.is_err() {
            self.fail(&deploy, "the server failed inside; its log says where");
        }
        self.queue.end(&app);
        Ok(true)
    }

    /// Ends a deploy with a sentence that holds no secret. As long as that cannot be
    /// written, it is tried again: otherwise the deploy would seem to go on for ever.
    pub fn fail(&self, deploy: &DeployId, sentence: &str) {
        let mut said = false;
        self.queue.insist(TRY_AGAIN, || {
            let noted = self.store.fail_deploy(deploy, sentence);
            if let (Err(error), false) = (&noted, said) {
                log::error!("deploy {deploy} failed ({sentence}), not noted yet: {error}");
                said = true;
            }
            noted.is_ok()
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn app(name: &str) -> AppId {
        AppId::parse(name).unwrap()
    }

    fn request(name: &str, is_rollback: bool) -> Queued {
        Queued { app: app(name), deploy: DeployId::parse(name).unwrap(), is_rollback }
    }

    /// Begins the first of these apps that is free.
    fn begin(queue: &Queue, cancel: &Cancel, apps: &[&str]) -> Option<String> {
        let requests = || Ok::<_, ()>(apps.iter().map(|name| request(name, false)).collect());
        queue.begin(cancel, requests).unwrap().map(|begun| begun.app.to_string())
    }

    #[test]
    fn a_cancelled_deploy_does_not_go_live_and_a_live_one_is_not_cancelled() {
        let (queue, cancel) = (Queue::default(), Cancel::new().unwrap());
        assert!(begin(&queue, &cancel, &["aaaaaaaaaa"]).is_some());
        queue.cancel(&app("bbbbbbbbbb"), "another app's");
        assert_eq!(queue.unless_cancelled(&cancel, || 1), Some(1));
        queue.cancel(&app("aaaaaaaaaa"), "stopped");
        queue.cancel(&app("aaaaaaaaaa"), "a later reason");
        assert_eq!(queue.unless_cancelled(&cancel, || 1), None);
        assert_eq!(queue.reason(&app("aaaaaaaaaa")), "stopped");
    }

    #[test]
    fn once_closed_nothing_begins_and_nobody_waits() {
        let queue = Queue::default();
        let (first, second) = (Cancel::new().unwrap(), Cancel::new().unwrap());
        assert!(begin(&queue, &first, &["aaaaaaaaaa"]).is_some());
        let turn = queue.build_turn(&first, || panic!("nobody builds")).unwrap();
        queue.close("the server stops");
        assert!(first.is_cancelled() && queue.is_closed());
        assert_eq!(queue.reason(&app("aaaaaaaaaa")), "the server stops");
        assert!(begin(&queue, &second, &["bbbbbbbbbb"]).is_none());
        queue.wait(0, Duration::from_secs(600));
        queue.insist(Duration::from_secs(600), || false);
        assert!(!queue.wait_for_garbage(Duration::from_secs(600)));
        drop(turn);
        assert!(queue.build_turn(&first, || {}).is_none());
    }

    #[test]
    fn what_must_be_noted_is_tried_until_it_succeeds() {
        let mut left = 3;
        Queue::default().insist(Duration::from_millis(1), || {
            left -= 1;
            left == 0
        });
        assert_eq!(left, 0);
    }

    #[test]
    fn two_deploys_of_one_app_never_run_at_once_and_those_of_others_do() {
        let (queue, cancel) = (Queue::default(), Cancel::new().unwrap());
        let waiting = ["aaaaaaaaaa", "bbbbbbbbbb"];
        assert_eq!(begin(&queue, &cancel, &waiting).as_deref(), Some("aaaaaaaaaa"));
        assert_eq!(begin(&queue, &cancel, &waiting).as_deref(), Some("bbbbbbbbbb"));
        assert_eq!(begin(&queue, &cancel, &waiting), None);
        let seen = queue.state().wakes;
        queue.end(&app("aaaaaaaaaa"));
        queue.wait(seen, Duration::from_secs(600));
        assert_eq!(begin(&queue, &cancel, &waiting).as_deref(), Some("aaaaaaaaaa"));
        assert_eq!(queue.begin(&cancel, || Err("the database")).err(), Some("the database"));
        assert!(queue.begin(&cancel, || Ok::<_, ()>(Vec::new())).unwrap().is_none());
    }

    #[test]
    fn a_rollback_waits_for_no_other_apps_build() {
        let (queue, cancel) = (Queue::default(), Cancel::new().unwrap());
        for name in ["aaaaaaaaaa", "bbbbbbbbbb", "cccccccccc", "dddddddddd"] {
            assert!(begin(&queue, &cancel, &[name]).is_some());
        }
        let waiting =
            || Ok::<_, ()>(vec![request("eeeeeeeeee", false), request("ffffffffff", true)]);
        let begun = queue.begin(&cancel, waiting).unwrap().unwrap();
        assert_eq!(begun.app, app("ffffffffff"));
        assert!(queue.begin(&cancel, waiting).unwrap().is_none());
        queue.end(&app("aaaaaaaaaa"));
        assert_eq!(queue.begin(&cancel, waiting).unwrap().unwrap().app, app("eeeeeeeeee"));
    }

    #[test]
    fn builds_take_turns_and_one_that_waits_can_be_cancelled() {
        let queue = Queue::default();
        let (first, second, third) =
            (Cancel::new().unwrap(), Cancel::new().unwrap(), Cancel::new().unwrap());
        for (cancel, name) in [(&first, "aaaaaaaaaa"), (&second, "bbbbbbbbbb")] {
            assert!(begin(&queue, cancel, &[name]).is_some());
        }
        let turn = queue.build_turn(&first, || panic!("nobody builds")).unwrap();
        let (told, hears) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            let (queue, tell) = (&queue, told.clone());
            let waiter =
                scope.spawn(move || queue.build_turn(&second, || tell.send(()).unwrap()).is_none());
            hears.recv().unwrap();
            queue.cancel(&app("bbbbbbbbbb"), "stopped");
            assert!(waiter.join().unwrap(), "it was cancelled");
            let waiter =
                scope.spawn(|| queue.build_turn(&third, || told.send(()).unwrap()).is_some());
            hears.recv().unwrap();
            drop(turn);
            assert!(waiter.join().unwrap());
        });
        assert!(!queue.state().building);
    }

    #[test]
    fn a_removal_is_finished_only_after_the_apps_deploy() {
        let (queue, cancel) = (Queue::default(), Cancel::new().unwrap());
        assert!(begin(&queue, &cancel, &["aaaaaaaaaa"]).is_some());
        for name in ["aaaaaaaaaa", "bbbbbbbbbb"] {
            queue.remove_later(Removal { app: app(name), keep_data: false, deploys: Vec::new() });
        }
        assert!(queue.wait_for_garbage(Duration::from_secs(600)));
        let free: Vec<_> = queue.removals().into_iter().map(|r| r.app).collect();
        assert_eq!(free, [app("bbbbbbbbbb")]);
        queue.end(&app("aaaaaaaaaa"));
        assert!(queue.wait_for_garbage(Duration::from_secs(600)));
        assert_eq!(queue.removals().len(), 1);
    }
}
