//! What is being deployed: one deploy at a time of each app, the oldest request first, and one
//! build at a time of all.

use crate::model::{AppId, DeployId};
use crate::proc::Cancel;
use crate::store::Deploy;
use crate::sync::{lock, wait_until, wait_while};
use std::os::fd::OwnedFd;
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// Deploys that run beside one another, besides those that wait for their turn to build.
/// Most of a deploy is waiting, for a Git host or for an app that starts; builds, which are
/// work, go one after the other.
const DEPLOYS: usize = 4;

/// One more than that, for rollbacks and restarts: they neither fetch nor build, and the
/// owner who needs one has no time for the builds of others.
const WITH_ROLLBACKS: usize = DEPLOYS + 1;

/// What is being deployed, and whether there is more.
#[derive(Default)]
pub struct Queue {
    state: Mutex<QueueState>,
    changed: Condvar,
}

#[derive(Default)]
struct QueueState {
    /// No further deploy begins, since the server stops.
    closed: bool,
    /// In the order in which they began, in which they build too.
    current: Vec<Current>,
    /// What uploads are read from, those that wait and those that have just begun.
    archives: Vec<(DeployId, OwnedFd)>,
    garbage: bool,
}

struct Current {
    request: Deploy,
    cancel: Cancel,
    turn: Turn,
}

/// What a deploy has to do with the one build at a time.
#[derive(Clone, Copy, PartialEq)]
enum Turn {
    /// Nothing: it has not come so far, or is over it.
    None,
    Awaited,
    Taken,
}

/// The right to build; given back when dropped.
pub struct BuildTurn<'a>(&'a Queue, &'a DeployId);

impl QueueState {
    /// The deploys that work, which is all that do not wait for their turn to build.
    fn working(&self) -> impl Iterator<Item = &Current> {
        self.current.iter().filter(|c| c.turn != Turn::Awaited)
    }

    /// Whether there is room for so many more that are no rollbacks.
    fn has_room_for(&self, more: usize) -> bool {
        self.working().filter(|c| c.request.release.is_none()).count() + more <= DEPLOYS
    }

    /// The deploy that may build now: of those that wait, the one that began first.
    fn next_to_build(&self) -> Option<&DeployId> {
        let is_free = !self.current.iter().any(|c| c.turn == Turn::Taken) && self.has_room_for(1);
        let mut waiting = self.current.iter().filter(|c| c.turn == Turn::Awaited);
        if is_free { waiting.next().map(|c| &c.request.id) } else { None }
    }

    /// Takes the first of these requests, oldest first, whose app has no deploy under way;
    /// only a rollback when as many others work as may.
    fn begin<E>(
        &mut self,
        cancel: &Cancel,
        requests: impl FnOnce() -> Result<Vec<Deploy>, E>,
    ) -> Result<Option<Deploy>, E> {
        if self.closed {
            return Ok(None);
        }
        // The next build has its place before anything that comes.
        let has_room = self.has_room_for(1 + usize::from(self.next_to_build().is_some()));
        let for_rollback = self.working().count() < WITH_ROLLBACKS;
        let may = |request: &Deploy| {
            (if request.release.is_some() { for_rollback } else { has_room })
                && !self.current.iter().any(|c| c.request.app == request.app)
        };
        // Asked for while we hold the lock: none that ends meanwhile begins again.
        let requests = requests()?;
        // One that is over was cancelled or replaced: closed, it ends who still writes to it.
        self.archives.retain(|(id, _)| {
            requests.iter().chain(self.current.iter().map(|c| &c.request)).any(|r| r.id == *id)
        });
        let Some(request) = requests.into_iter().find(may) else { return Ok(None) };
        let (begun, cancel) = (request.clone(), cancel.clone());
        self.current.push(Current { request: begun, cancel, turn: Turn::None });
        Ok(Some(request))
    }
}

impl Queue {
    /// Says that there may be something to do.
    pub fn wake(&self) {
        // With the lock, which the worker has from its look until it sleeps.
        let _state = self.state();
        self.changed.notify_all();
    }

    /// Has `ask` ask for a deploy of an archive, and keeps what that is read from until the
    /// deploy takes it.
    ///
    /// # Errors
    /// That of `ask`.
    pub fn keep_archive<E>(
        &self,
        archive: OwnedFd,
        ask: impl FnOnce() -> Result<Option<Deploy>, E>,
    ) -> Result<Option<Deploy>, E> {
        // With the lock, so that it does not begin before it is kept.
        let mut state = self.state();
        let asked = ask()?;
        state.archives.extend(asked.iter().map(|deploy| deploy.id.clone()).zip([archive]));
        self.changed.notify_all();
        Ok(asked)
    }

    /// What the archive of a deploy is read from; `None` when an earlier server was sent it.
    pub fn take_archive(&self, deploy: &DeployId) -> Option<OwnedFd> {
        let mut state = self.state();
        let place = state.archives.iter().position(|(id, _)| id == deploy)?;
        Some(state.archives.swap_remove(place).1)
    }

    /// Ends the deploys under way, and begins no other.
    pub fn close(&self) {
        let mut state = self.state();
        state.closed = true;
        state.current.iter().for_each(|c| c.cancel.cancel());
        self.changed.notify_all();
    }

    /// Ends the work on a deploy that the database says has ended. That alone decides: a
    /// deploy that has ended there does not go live, and a live one is not ended.
    pub fn cancel(&self, deploy: &DeployId) {
        let state = self.state();
        let of_deploy = state.current.iter().filter(|c| c.request.id == *deploy);
        of_deploy.for_each(|c| c.cancel.cancel());
        // It may be waiting for its turn to build.
        self.changed.notify_all();
    }

    /// Has what was put aside removed now.
    pub fn tidy(&self) {
        self.state().garbage = true;
        self.changed.notify_all();
    }

    /// Does what takes a moment unless a deploy of the app is under way; none begins meanwhile.
    pub fn between_deploys(&self, app: &AppId, work: impl FnOnce() -> bool) -> bool {
        let state = self.state();
        !state.current.iter().any(|c| c.request.app == *app) && work()
    }

    /// Waits for the turn to build, which the deploy that began first has first; `None` when
    /// this one was cancelled meanwhile. `on_wait` is called once if it has to wait.
    pub fn build_turn<'a>(
        &'a self,
        deploy: &'a DeployId,
        cancel: &Cancel,
        on_wait: impl FnOnce(),
    ) -> Option<BuildTurn<'a>> {
        self.set_turn(self.state(), deploy, Turn::Awaited);
        if self.state().next_to_build() != Some(deploy) {
            on_wait();
        }
        let waits =
            |s: &mut QueueState| !cancel.is_cancelled() && s.next_to_build() != Some(deploy);
        let state = wait_while(&self.changed, self.state(), waits);
        let mine = state.next_to_build() == Some(deploy) && !cancel.is_cancelled();
        self.set_turn(state, deploy, if mine { Turn::Taken } else { Turn::None });
        mine.then_some(BuildTurn(self, deploy))
    }

    /// Whether the server stops.
    pub fn is_closed(&self) -> bool {
        self.state().closed
    }

    /// Waits until files may be there to remove; `false` when the server stops.
    pub fn wait_for_garbage(&self, at_most: Duration) -> bool {
        let mut state = self.wait_while(at_most, |state| !state.garbage);
        state.garbage = false;
        !state.closed
    }

    /// Waits for a request that may begin, and takes it; `None` when the server stops.
    ///
    /// # Errors
    /// When it is not known what is requested.
    pub fn next<E>(
        &self,
        cancel: &Cancel,
        requests: impl Fn() -> Result<Vec<Deploy>, E>,
    ) -> Result<Option<Deploy>, E> {
        let mut begun = Ok(None);
        drop(wait_while(&self.changed, self.state(), |state| {
            begun = state.begin(cancel, &requests);
            !state.closed && matches!(begun, Ok(None))
        }));
        begun
    }

    /// Takes note that a deploy has ended.
    pub fn end(&self, deploy: &DeployId) {
        let mut state = self.state();
        state.current.retain(|c| c.request.id != *deploy);
        state.garbage = true;
        // Another request of the same app may have waited for this.
        self.changed.notify_all();
    }

    /// Notes it, for who waits for a turn or for room.
    fn set_turn(&self, mut state: MutexGuard<'_, QueueState>, deploy: &DeployId, turn: Turn) {
        let of_deploy = state.current.iter_mut().filter(|c| c.request.id == *deploy);
        of_deploy.for_each(|c| c.turn = turn);
        self.changed.notify_all();
    }

    /// Does `work` again and again until it succeeds; a server that stops leaves it to
    /// the next one.
    pub fn insist(&self, pause: Duration, mut work: impl FnMut() -> bool) {
        while !work() && self.pause(pause) {}
    }

    /// Waits so long; `false` when the server stops.
    pub fn pause(&self, pause: Duration) -> bool {
        !self.wait_while(pause, |_| true).closed
    }

    fn wait_while(
        &self,
        at_most: Duration,
        nothing: impl Fn(&QueueState) -> bool,
    ) -> MutexGuard<'_, QueueState> {
        let wants = |state: &mut QueueState| !state.closed && nothing(state);
        wait_until(Instant::now() + at_most, &self.changed, self.state(), wants)
    }

    fn state(&self) -> MutexGuard<'_, QueueState> {
        lock(&self.state)
    }
}

impl Drop for BuildTurn<'_> {
    fn drop(&mut self) {
        self.0.set_turn(self.0.state(), self.1, Turn::None);
    }
}

#[cfg(test)]
mod tests;
