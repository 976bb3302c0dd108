//! Probes the machine, at the start and from time to time: one thread tries what it
//! takes to run apps, everybody else reads what it found last and waits for nothing.

use super::deployer::Shared;
use super::etc::Etc;
use super::firewall::{self, Firewall};
use super::machine::Machine;
use crate::proc::Cancel;
use crate::sync::{lock, wait_until, wait_while};
use std::io;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

/// Time between two looks when all is well.
const WELL: Duration = Duration::from_secs(600);

/// The same while the firewall is not there: the owner may be about to load it.
const OPEN: Duration = Duration::from_secs(60);

/// The same while apps cannot run: the owner may be installing what was missing.
const WANTING: Duration = Duration::from_secs(15);

/// This program as it runs, also when its file was replaced.
const THIS_PROGRAM: &str = "/proc/self/exe";

/// What is known of the machine.
pub struct Probe {
    known: Mutex<Known>,
    changed: Condvar,
    stop: Cancel,
}

#[derive(Default)]
struct Known {
    machine: Option<Result<Arc<Machine>, String>>,
    firewall: Option<Firewall>,
    closed: bool,
}

impl Probe {
    /// Nothing is known yet.
    ///
    /// # Errors
    /// When the process has no descriptor left.
    pub fn new() -> io::Result<Self> {
        let stop = Cancel::new()?;
        Ok(Self { known: Mutex::default(), changed: Condvar::new(), stop })
    }

    /// What was found last; `None` before the first look has ended.
    pub fn machine(&self) -> Option<Result<Arc<Machine>, String>> {
        lock(&self.known).machine.clone()
    }

    /// Whether apps are fenced off, as it was found last; `None` while that is not known.
    pub fn firewall(&self) -> Option<Firewall> {
        lock(&self.known).firewall.clone()
    }

    /// Ends the look under way, and [`Shared::probe_until_closed`].
    pub fn close(&self) {
        lock(&self.known).closed = true;
        self.stop.cancel();
        self.changed.notify_all();
    }

    /// Waits, unless the server stops; `false` when it does.
    fn pause(&self, at_most: Duration) -> bool {
        let (until, known) = (Instant::now() + at_most, lock(&self.known));
        !wait_until(until, &self.changed, known, |known| !known.closed).closed
    }

    fn note(&self, change: impl FnOnce(&mut Known)) {
        change(&mut lock(&self.known));
        self.changed.notify_all();
    }
}

impl Shared {
    /// The machine, for threads that may wait for the first look to end.
    ///
    /// # Errors
    /// The sentence that says what is missing.
    pub fn machine(&self) -> Result<Arc<Machine>, String> {
        let nothing_yet = |known: &mut Known| known.machine.is_none() && !known.closed;
        let known = wait_while(&self.probe.changed, lock(&self.probe.known), nothing_yet);
        known.machine.clone().unwrap_or_else(|| Err("the server is stopping".to_owned()))
    }

    /// Looks until the server stops.
    pub fn probe_until_closed(&self) {
        let probe = &self.probe;
        let (mut said, mut has_program) = (None, false);
        loop {
            let etc = self.places.etc().map_err(|e| e.to_string());
            let found = etc.and_then(|etc| {
                if !has_program {
                    Etc::new(&etc).put_program(Path::new(THIS_PROGRAM))?;
                    has_program = true;
                }
                Machine::probe(&etc, &self.places.apps(), &probe.stop)
            });
            let found = found.map(Arc::new);
            if probe.stop.is_cancelled() {
                return;
            }
            let problem = found.as_ref().err().cloned();
            if let Some(why) = problem.as_ref().filter(|_| problem != said) {
                log::warn!("apps cannot run: {why}");
            }
            said = problem;
            probe.note(|known| known.machine = Some(found.clone()));
            let firewall = found.ok().map(|machine| firewall::look(&machine, &probe.stop));
            let pause = match &firewall {
                None => WANTING,
                Some(Firewall::InForce) => WELL,
                Some(Firewall::Missing(_)) => OPEN,
            };
            probe.note(|known| known.firewall = firewall);
            if !probe.pause(pause) {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_who_asks_waits_and_a_stop_ends_the_pause() {
        let probe = Probe::new().unwrap();
        assert!(probe.machine().is_none() && probe.firewall().is_none());
        probe.note(|known| known.machine = Some(Err("nothing installed".into())));
        assert!(matches!(probe.machine(), Some(Err(why)) if why == "nothing installed"));
        std::thread::scope(|scope| {
            let pause = scope.spawn(|| probe.pause(Duration::from_secs(600)));
            probe.close();
            assert!(!pause.join().unwrap());
        });
    }
}
