//! Draining: processes on their way out, those that were replaced and may finish their answers,
//! and those that were asked to end.

use super::instance::Instance;
use super::tcp_sockets::busy_ports;
use super::tools::Tools;
use crate::model::{AppId, ProcessId};
use crate::store::Store;
use std::collections::HashSet;
use std::time::{Duration, Instant};

/// How long a process may take to end after SIGTERM.
const GRACE: Duration = Duration::from_secs(30);
/// The same for one whose app is being removed: nobody needs its last answers.
const SHORT_GRACE: Duration = Duration::from_secs(5);
/// The same when the server itself stops, which must be over within 10 s.
const LAST_GRACE: Duration = Duration::from_secs(3);

/// How long a process that was replaced is left alone at least: requests that the router
/// had sent on their way to it get there.
const SETTLE: Duration = Duration::from_secs(1);
/// How long at most, while a client is connected to it: most requests come to their end in
/// that time, and WebSockets need not have one.
const DRAIN: Duration = Duration::from_secs(30);
/// Time between two looks at who is connected; on a busy machine the list is long.
const DRAIN_LOOK: Duration = Duration::from_millis(500);
/// How many replaced processes of one app are left alone at once. Each of them takes
/// memory like the live one.
const MOST_DRAINING: usize = 3;

/// Time between two looks while a process is ending.
pub const LOOK: Duration = Duration::from_millis(100);

/// Why a process is on its way out.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// Its owner has stopped the app: how it ends is recorded, and none is started meanwhile.
    Stopped,
    /// Another process will take its place once it has gone: how it ends is recorded.
    GivesWay,
    /// Another process has taken its place; the database remembers it as long as it is there.
    Replaced,
    /// Nobody needs to know any more: its app is being removed, or it has ended by itself and
    /// something inside takes a moment to go.
    Discarded,
}

/// A process on its way out.
struct Ending {
    id: ProcessId,
    instance: Instance,
    why: Why,
    /// What it is given before it is asked to end; `None` once it was asked.
    drain: Option<Drain>,
    kill_at: Instant,
}

impl Ending {
    /// Asks it to end, once.
    fn ask(&mut self) {
        if self.drain.take().is_some() {
            self.instance.terminate();
            self.kill_at = Instant::now() + GRACE;
        }
    }
}

/// Time for a process that was replaced to answer what it was asked.
struct Drain {
    port: u16,
    since: Instant,
}

impl Drain {
    fn has_settled(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.since) >= SETTLE
    }

    /// Whether it is over; `None` for `busy` says that nobody knows who is connected.
    fn is_over(&self, now: Instant, busy: Option<&HashSet<u16>>) -> bool {
        let idle = busy.is_some_and(|ports| !ports.contains(&self.port));
        let late = now.saturating_duration_since(self.since) >= DRAIN;
        late || (idle && self.has_settled(now))
    }
}

/// All processes on their way out.
#[derive(Default)]
pub struct Draining {
    all: Vec<Ending>,
    /// When to look again at who is connected.
    look_at: Option<Instant>,
}

impl Draining {
    /// Asks a process to end.
    pub fn end(&mut self, of: impl Into<ProcessId>, mut instance: Instance, why: Why) {
        let id = of.into();
        instance.terminate();
        let grace = if why == Why::Discarded { SHORT_GRACE } else { GRACE };
        let kill_at = Instant::now() + grace;
        self.all.push(Ending { id, instance, why, drain: None, kill_at });
    }

    /// Stops a process whose place another one has taken, or will take, once nobody is connected to
    /// it any more: apps that end without finishing their answers are common. After a
    /// restart of the server its time begins anew.
    pub fn replace(&mut self, app: &AppId, instance: Instance, port: u16, why: Why) {
        let since = Instant::now();
        // The oldest come first.
        let draining = self.all.iter_mut().filter(|l| l.id.app == *app && l.drain.is_some());
        let mut draining: Vec<&mut Ending> = draining.collect();
        let too_many = (draining.len() + 1).saturating_sub(MOST_DRAINING);
        draining.iter_mut().take(too_many).for_each(|ending| ending.ask());
        let (drain, kill_at) = (Some(Drain { port, since }), since + DRAIN + GRACE);
        self.all.push(Ending { id: app.into(), instance, why, drain, kill_at });
    }

    /// Asks those of an app to end that were left alone: it is stopped as a whole.
    pub fn hurry(&mut self, app: &AppId) {
        self.all.iter_mut().filter(|ending| ending.id.app == *app).for_each(Ending::ask);
    }

    /// Nobody needs what is left of an app any more.
    pub fn forget(&mut self, app: &AppId) {
        for ending in self.all.iter_mut().filter(|ending| ending.id.app == *app) {
            ending.ask();
            ending.why = Why::Discarded;
            ending.kill_at = ending.kill_at.min(Instant::now() + SHORT_GRACE);
        }
    }

    /// Gives back the process of an app that another one was to follow, if it was not asked to
    /// end yet.
    pub fn take_back(&mut self, app: &AppId) -> Option<Instance> {
        let is_whole = |e: &Ending| e.id.app == *app && e.why == Why::GivesWay && e.drain.is_some();
        Some(self.all.swap_remove(self.all.iter().position(is_whole)?).instance)
    }

    /// Whether a process of the same app is ending whose place no other has taken yet: the one
    /// that requests go to waits for its like, and a worker for all workers.
    pub fn holds_up(&self, id: &ProcessId) -> bool {
        let is_like = |one: &ProcessId| one.app == id.app && one.is_web() == id.is_web();
        self.all.iter().any(|ending| ending.why != Why::Replaced && is_like(&ending.id))
    }

    /// Whether any process of this app is on its way out.
    pub fn has(&self, app: &AppId) -> bool {
        self.all.iter().any(|ending| ending.id.app == *app)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Reaps those that were asked to end: when they have, or have had their time.
    pub fn reap(&mut self, Tools { store, journal, board, .. }: &Tools) {
        let now = Instant::now();
        let busy = self.busy(now);
        self.all.retain_mut(|ending| {
            if !ending.instance.is_gone() {
                if ending.drain.as_ref().is_some_and(|drain| drain.is_over(now, busy.as_ref())) {
                    ending.ask();
                }
                if now >= ending.kill_at {
                    ending.instance.kill();
                }
                return true;
            }
            if matches!(ending.why, Why::Stopped | Why::GivesWay)
                && let Some(exit) = ending.instance.try_wait()
            {
                if ending.id.is_web() {
                    record_end(store, &ending.id.app, ending.instance.pid(), &exit.to_string());
                }
                journal.note_app(&ending.id.app, &format!("{}Stopped.", ending.id.label()));
            }
            if !ending.id.is_web() {
                board.gone(&ending.id);
            }
            let (pid, ticks) = (ending.instance.pid(), ending.instance.start_ticks());
            let noted = match ending.why {
                _ if !ending.id.is_web() => store.worker_gone(&ending.id, pid),
                Why::Replaced => store.drained(pid, ticks),
                _ => Ok(()),
            };
            if let Err(error) = noted {
                log::error!("the end of process {pid} could not be noted: {error}");
            }
            false
        });
    }

    /// The server stops: those that shall end get a moment more, or the next one would take them
    /// for live, or not know them. Those that were replaced, or have not been asked yet, stay as they
    /// are, in the middle of an answer or not; the next server finds them.
    pub fn finish(&mut self, tools: &Tools) {
        self.all.retain(|ending| ending.why != Why::Replaced && ending.drain.is_none());
        let until = Instant::now() + LAST_GRACE;
        self.all.iter_mut().for_each(|ending| ending.kill_at = ending.kill_at.min(until));
        self.reap(tools);
        while !self.is_empty() && Instant::now() < until + LAST_GRACE {
            std::thread::sleep(LOOK);
            self.reap(tools);
        }
    }

    /// The ports that clients are connected to, where that matters and it is time to look;
    /// otherwise as if nobody knew.
    fn busy(&mut self, now: Instant) -> Option<HashSet<u16>> {
        let matters = |l: &Ending| l.drain.as_ref().is_some_and(|drain| drain.has_settled(now));
        if self.look_at.is_some_and(|at| now < at) || !self.all.iter().any(matters) {
            return None;
        }
        self.look_at = Some(now + DRAIN_LOOK);
        busy_ports().inspect_err(|e| log::error!("connections cannot be listed: {e}")).ok()
    }
}

/// Notes how a process of an app has ended.
pub fn record_end(store: &Store, app: &AppId, pid: u32, how: &str) {
    if let Err(error) = store.process_ended(app, pid, how) {
        log::error!("the end of app {app} could not be noted: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replaced_process_is_left_alone_while_somebody_is_connected_but_not_for_ever() {
        let since = Instant::now();
        let drain = Drain { port: 20_000, since };
        let (here, elsewhere) = (HashSet::from([20_000]), HashSet::from([20_001]));
        let is_over = |after: Duration, busy| drain.is_over(since + after, busy);
        let moment = Duration::from_millis(1);
        assert!(!is_over(SETTLE.saturating_sub(moment), Some(&elsewhere)));
        assert!(is_over(SETTLE, Some(&elsewhere)));
        assert!(!is_over(DRAIN.saturating_sub(moment), Some(&here)));
        assert!(!is_over(DRAIN.saturating_sub(moment), None), "not known is not idle");
        assert!(is_over(DRAIN, Some(&here)) && is_over(DRAIN, None));
    }
}
