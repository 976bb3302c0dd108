//! What threads need of one another beyond the standard library: a lock that a panic
//! elsewhere does not spoil, and a bell that whoever waits with poll(2) hears.

use rustix::event::{EventfdFlags, eventfd};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks. Whoever panicked with the lock has ended one request, deploy or turn; for a lock
/// that is taken by this, what it guards is whole at any point.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A bell: its descriptor is readable from the first ring until somebody silences it (eventfd(2)).
#[derive(Debug)]
pub struct Bell(OwnedFd);

impl Bell {
    /// A bell that nobody has rung.
    ///
    /// # Errors
    /// When the process has no descriptor left.
    pub fn new() -> io::Result<Self> {
        Ok(Self(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?))
    }

    /// Rings it.
    pub fn ring(&self) {
        // Fails only when the counter is full, and then the descriptor is readable already.
        let _ = rustix::io::write(&self.0, &1_u64.to_ne_bytes());
    }

    /// Silences it. Then look at what it rang for: who rings from here on is heard the
    /// next time.
    pub fn silence(&self) {
        // Fails only when nobody has rung.
        let _ = rustix::io::read(&self.0, &mut [0; 8]);
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    #[test]
    fn a_bell_is_heard_until_it_is_silenced_however_often_it_was_rung() {
        let bell = Bell::new().unwrap();
        let is_heard = || {
            let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
            poll(&mut [PollFd::new(&bell, PollFlags::IN)], Some(&at_once)).unwrap() == 1
        };
        assert!(!is_heard());
        bell.ring();
        bell.ring();
        assert!(is_heard() && is_heard());
        bell.silence();
        assert!(!is_heard());
        bell.silence();
        bell.ring();
        assert!(is_heard());
    }

    #[test]
    fn a_panic_elsewhere_does_not_spoil_a_lock() {
        let mutex = Mutex::new(7);
        let panicked = std::thread::scope(|scope| {
            let panic = || {
                let _held = mutex.lock().unwrap();
                panic!("while it was held");
            };
            scope.spawn(panic).join()
        });
        assert!(panicked.is_err() && mutex.is_poisoned());
        assert_eq!(*lock(&mutex), 7);
    }
}
