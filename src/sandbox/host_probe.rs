//! Probes the machine, at the start and from time to time: one thread tries what it
//! takes to run apps, everybody else reads what it found last and waits for nothing.

use super::etc_files::Etc;
use super::fences::{self, Fences};
use super::host::Machine;
use crate::deploy::deployer::Shared;
use crate::proc::Cancel;
use crate::router::State;
use crate::runtime::tcp_sockets::picked_by_kernel;
use crate::sync::{lock, wait_until, wait_while};
use std::io;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

/// Time between two looks at the machine when all is well.
const WELL: Duration = Duration::from_secs(600);

/// The same while apps cannot run: the owner may be installing what was missing.
const WANTING: Duration = Duration::from_secs(15);

/// Time between two looks at the fences, so that a change is seen within 30 s.
const FENCES: Duration = Duration::from_secs(25);

/// This program as it runs, also when its file was replaced.
const THIS_PROGRAM: &str = "/proc/self/exe";

/// Time between two looks at who has our ports, where the kernel keeps apps from none.
const GUARD: Duration = Duration::from_secs(2);

/// What is known of the machine.
pub struct Probe {
    known: Mutex<Known>,
    changed: Condvar,
    stop: Cancel,
}

#[derive(Default)]
struct Known {
    machine: Option<Result<Arc<Machine>, String>>,
    fences: Option<Fences>,
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

    /// How apps are fenced off, as it was found last; `None` while that is not known.
    pub fn fences(&self) -> Option<Fences> {
        lock(&self.known).fences.clone()
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
            let found = self.look_at_machine(&mut has_program).map(Arc::new);
            if probe.stop.is_cancelled() {
                return;
            }
            let problem = found.as_ref().err().cloned();
            if let Some(why) = problem.as_ref().filter(|_| problem != said) {
                log::warn!("apps cannot run: {why}");
            }
            said = problem;
            probe.note(|known| known.machine = Some(found.clone()));
            let goes_on = match found {
                Ok(machine) => self.look_at_fences(&machine, Instant::now() + WELL),
                Err(_) => {
                    probe.note(|known| known.fences = None);
                    probe.pause(WANTING)
                }
            };
            if !goes_on {
                return;
            }
        }
    }

    fn look_at_machine(&self, has_program: &mut bool) -> Result<Machine, String> {
        let etc = self.places.etc().map_err(|e| e.to_string())?;
        if !*has_program {
            Etc::new(&etc).put_program(Path::new(THIS_PROGRAM))?;
            *has_program = true;
        }
        Machine::probe(&etc, &self.places.apps(), &self.probe.stop)
    }

    /// Looks at the fences again and again until then; `false` when the server stops.
    fn look_at_fences(&self, machine: &Machine, until: Instant) -> bool {
        let probe = &self.probe;
        while Instant::now() < until {
            let fences = fences::look(machine, &probe.stop);
            let is_open = fences.ports.is_err() || self.kernel_may_give_ours_away();
            probe.note(|known| known.fences = Some(fences));
            let again = Instant::now() + FENCES;
            while is_open && Instant::now() < again {
                self.take_ports_back();
                if !probe.pause(GUARD) {
                    return false;
                }
            }
            if !probe.pause(again.saturating_duration_since(Instant::now())) {
                return false;
            }
        }
        true
    }

    /// Whether an app may get a port of ours by asking for any.
    fn kernel_may_give_ours_away(&self) -> bool {
        let picked = picked_by_kernel();
        self.own_ports().any(|port| picked.contains(&port))
    }

    /// Ends the apps that have a port of the server's or the router's.
    fn take_ports_back(&self) {
        for port in self.own_ports() {
            self.guard.take_back(port);
        }
    }

    fn own_ports(&self) -> impl Iterator<Item = u16> {
        let router = match self.router.state() {
            State::Running { ports, .. } => [Some(ports.http), ports.https],
            _ => [None, None],
        };
        [Some(self.own_port)].into_iter().chain(router).flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_who_asks_waits_and_a_stop_ends_the_pause() {
        let probe = Probe::new().unwrap();
        assert!(probe.machine().is_none() && probe.fences().is_none());
        probe.note(|known| known.machine = Some(Err("nothing installed".into())));
        assert!(matches!(probe.machine(), Some(Err(why)) if why == "nothing installed"));
        std::thread::scope(|scope| {
            let pause = scope.spawn(|| probe.pause(Duration::from_secs(600)));
            probe.close();
            assert!(!pause.join().unwrap());
        });
    }
}
