//! Probes the host, at the start and from time to time: one thread tries what it takes to run
//! apps, all others read what it found last and wait for nothing.

use super::etc_files::EtcFiles;
use super::fences::{self, Fences};
use super::host::Host;
use super::host_probe::probe;
use super::port_range::picked_by_kernel;
use crate::disk::layout::Layout;
use crate::model::AnyError;
use crate::proc::{Cancel, wait_any};
use crate::sync::{lock, wait_while};
use std::io;
use std::os::fd::AsFd as _;
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

/// What is known of the host.
pub struct HostWatch {
    layout: Layout,
    known: Mutex<Known>,
    changed: Condvar,
    stop: Cancel,
}

#[derive(Default)]
struct Known {
    host: Option<Result<Arc<Host>, String>>,
    fences: Option<Fences>,
}

impl HostWatch {
    /// Nothing is known yet.
    ///
    /// # Errors
    /// When the process has no descriptor left.
    pub fn new(layout: Layout) -> io::Result<Self> {
        let stop = Cancel::new()?;
        Ok(Self { layout, known: Mutex::default(), changed: Condvar::new(), stop })
    }

    /// What was found last; `None` before the first look has ended.
    pub fn last(&self) -> Option<Result<Arc<Host>, String>> {
        lock(&self.known).host.clone()
    }

    /// How apps are fenced off, as it was found last; `None` while that is not known.
    pub fn fences(&self) -> Option<Fences> {
        lock(&self.known).fences.clone()
    }

    /// Ends the look under way, and [`HostWatch::run`].
    pub fn close(&self) {
        self.stop.cancel();
        self.note(|_| ());
    }

    /// The host, for threads that may wait for the first look to end.
    ///
    /// # Errors
    /// The sentence that says what is missing.
    pub fn wait(&self) -> Result<Arc<Host>, String> {
        let nothing_yet = |known: &mut Known| known.host.is_none() && !self.stop.is_cancelled();
        let known = wait_while(&self.changed, lock(&self.known), nothing_yet);
        known.host.clone().unwrap_or_else(|| Err("the server is stopping".to_owned()))
    }

    /// Looks until the server stops. While an app could get one of the server's `own_ports`,
    /// `take_back` is called for each of them every two seconds.
    pub fn run(&self, own_ports: &dyn Fn() -> Vec<u16>, take_back: &dyn Fn(u16)) {
        loop {
            // Kept as text: it is compared with what comes next, and told again and again.
            let found = self.look().map(Arc::new).map_err(|error| error.to_string());
            if self.stop.is_cancelled() {
                return;
            }
            if let Err(why) = &found
                && !matches!(self.last(), Some(Err(before)) if before == *why)
            {
                log::warn!("apps cannot run: {why}");
            }
            self.note(|known| known.host = Some(found.clone()));
            let Ok(host) = found else {
                self.note(|known| known.fences = None);
                self.pause(WANTING);
                continue;
            };
            let until = Instant::now() + WELL;
            let goes_on = |until| Instant::now() < until && !self.stop.is_cancelled();
            while goes_on(until) {
                let fences = fences::look(&host, &own_ports(), &self.stop);
                let picked = picked_by_kernel();
                let is_open =
                    fences.ports.is_some() || own_ports().iter().any(|port| picked.contains(port));
                self.note(|known| known.fences = Some(fences));
                let again = Instant::now() + FENCES;
                while is_open && goes_on(again) {
                    own_ports().into_iter().for_each(take_back);
                    self.pause(GUARD);
                }
                self.pause(again.saturating_duration_since(Instant::now()));
            }
        }
    }

    /// Looks now.
    ///
    /// # Errors
    /// The sentence that says what is missing.
    pub fn look(&self) -> Result<Host, AnyError> {
        // Made again, should it have gone meanwhile.
        let etc = self.layout.etc()?;
        let etc = EtcFiles::make(&etc, Path::new(THIS_PROGRAM))?;
        Ok(probe(etc, &self.layout.apps(), &self.stop)?)
    }

    /// Waits, unless the server stops.
    fn pause(&self, at_most: Duration) {
        if wait_any(&[self.stop.as_fd()], at_most).is_err() {
            std::thread::sleep(GUARD);
        }
    }

    fn note(&self, change: impl FnOnce(&mut Known)) {
        change(&mut lock(&self.known));
        self.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_who_asks_waits_and_a_stop_ends_the_pause() {
        let dir = tempfile::tempdir().unwrap();
        let data = crate::data_dir::DataDir::open(&dir.path().join("data")).unwrap();
        let watch = HostWatch::new(Layout::new(data)).unwrap();
        assert!(watch.last().is_none() && watch.fences().is_none());
        watch.note(|known| known.host = Some(Err("nothing installed".into())));
        assert!(matches!(watch.last(), Some(Err(why)) if why == "nothing installed"));
        std::thread::scope(|scope| {
            scope.spawn(|| watch.pause(Duration::from_secs(600)));
            watch.close();
        });
    }
}
