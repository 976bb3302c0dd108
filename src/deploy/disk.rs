//! How full a deploy may make the disk, and who looks while it writes.

use crate::proc::{Cancel, wait_any};
use std::io;
use std::os::fd::AsFd;
use std::thread;
use std::time::Duration;

/// Bytes of disk that a deploy must leave free: the database, the logs and the apps'
/// own data go on growing.
const LEAST_SPACE: u64 = 500 << 20;

/// The same in parts of a hundred.
const LEAST_PERCENT: u64 = 5;

/// How often the disk is looked at while a deploy writes: what a fast one takes in this
/// time is less than what it must leave.
const LOOK: Duration = Duration::from_millis(250);

/// Free bytes and bytes in all.
#[derive(Debug, Clone, Copy)]
pub struct Space {
    /// Free for us.
    pub free: u64,
    /// All there are.
    pub all: u64,
}

impl Space {
    /// Bytes that deploys may still take.
    #[must_use]
    pub fn room(self) -> u64 {
        self.free.saturating_sub(self.least())
    }

    /// Why no deploy begins, or goes on.
    #[must_use]
    pub fn too_little(self) -> Option<String> {
        let (free, all, least) = (self.free >> 20, self.all >> 20, LEAST_SPACE >> 20);
        (self.free < self.least()).then(|| {
            format!(
                "only {free} MiB of {all} MiB of disk are free, and a deploy needs {least} MiB \
                 and {LEAST_PERCENT} %; free some space"
            )
        })
    }

    fn least(self) -> u64 {
        LEAST_SPACE.max(self.all / 100 * LEAST_PERCENT)
    }
}

/// Does `work`, which ends early when its argument is cancelled: with `cancel`, or when
/// `no_room` says why the disk is too full. Answers that reason too.
///
/// # Errors
/// When the watch could not be set up; nothing was done then.
pub fn watched<T>(
    cancel: &Cancel,
    no_room: &(dyn Fn() -> Option<String> + Sync),
    work: impl FnOnce(&Cancel) -> T,
) -> io::Result<(T, Option<String>)> {
    let (stop, done) = (Cancel::new()?, Cancel::new()?);
    Ok(thread::scope(|scope| {
        let watch = scope.spawn(|| watch(cancel, &stop, &done, no_room));
        // However the work ends, the watch ends with it.
        let end = End(&done);
        let result = work(&stop);
        drop(end);
        (result, watch.join().unwrap_or_default())
    }))
}

struct End<'a>(&'a Cancel);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// Stops the work when it is cancelled, or when the disk is too full; says why then.
fn watch(
    cancel: &Cancel,
    stop: &Cancel,
    done: &Cancel,
    no_room: &(dyn Fn() -> Option<String> + Sync),
) -> Option<String> {
    while !done.is_cancelled() {
        let why = no_room();
        if why.is_some() || cancel.is_cancelled() {
            stop.cancel();
            return why;
        }
        if wait_any(&[cancel.as_fd(), done.as_fd()], LOOK).is_err() {
            thread::sleep(LOOK);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};

    const GIB: u64 = 1 << 30;

    #[test]
    fn a_full_disk_refuses_a_deploy_before_it_begins() {
        let too_little = |free, all| Space { free, all }.too_little();
        assert_eq!(too_little(10 * GIB, 100 * GIB), None);
        assert_eq!(too_little(GIB, 10 * GIB), None);
        assert!(too_little(4 * GIB, 100 * GIB).is_some(), "less than 5 %");
        let sentence = too_little(GIB / 4, 2 * GIB).unwrap();
        assert!(sentence.contains("only 256 MiB of 2048 MiB"), "{sentence}");
    }

    #[test]
    fn what_must_stay_free_is_nobodys_room() {
        let room = |free, all| Space { free, all }.room();
        assert_eq!(room(GIB, 8 * GIB), GIB - LEAST_SPACE);
        assert!(room(10 * GIB, 100 * GIB) <= 5 * GIB + 100, "5 % of a large disk");
        assert_eq!(room(GIB / 4, 2 * GIB), 0);
    }

    #[test]
    fn work_ends_when_the_disk_gets_too_full_or_somebody_cancels_it() {
        let cancel = Cancel::new().unwrap();
        let waits = |stop: &Cancel| wait_any(&[stop.as_fd()], Duration::from_secs(600)).is_ok();
        let full = AtomicBool::new(false);
        let no_room = || full.load(Ordering::SeqCst).then(|| "no room".to_owned());
        let (value, why) = watched(&cancel, &no_room, |stop| stop.is_cancelled()).unwrap();
        assert_eq!((value, why), (false, None));
        let fills = |stop: &Cancel| {
            full.store(true, Ordering::SeqCst);
            waits(stop) && stop.is_cancelled()
        };
        let ended = watched(&cancel, &no_room, fills).unwrap();
        assert_eq!(ended, (true, Some("no room".to_owned())));
        cancel.cancel();
        let ended = watched(&cancel, &|| None, |stop| waits(stop) && stop.is_cancelled());
        assert_eq!(ended.unwrap(), (true, None));
    }
}
