//! What threads need of one another beyond the standard library: a lock and waits that a
//! panic elsewhere does not spoil, and a wake-up that threads in poll(2) hear.

use rustix::event::{EventfdFlags, eventfd};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Locks. A thread that panicked with the lock has ended one request, deploy or turn; for a lock
/// that is taken by this, what it guards is whole at any point.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits for `changed` while `wants` says so. The standard library's `wait_while` returns
/// at the first wake, whatever it wants, once a thread has panicked with the lock.
pub fn wait_while<'a, T>(
    changed: &Condvar,
    mut guard: MutexGuard<'a, T>,
    mut wants: impl FnMut(&mut T) -> bool,
) -> MutexGuard<'a, T> {
    while wants(&mut guard) {
        guard = changed.wait(guard).unwrap_or_else(PoisonError::into_inner);
    }
    guard
}

/// Waits like [`wait_while`], but no longer than `until`. Whether it still wants is for the
/// caller to see.
pub fn wait_until<'a, T>(
    until: Instant,
    changed: &Condvar,
    mut guard: MutexGuard<'a, T>,
    mut wants: impl FnMut(&mut T) -> bool,
) -> MutexGuard<'a, T> {
    while wants(&mut guard) {
        let rest = until.saturating_duration_since(Instant::now());
        if rest.is_zero() {
            break;
        }
        guard = changed.wait_timeout(guard, rest).unwrap_or_else(PoisonError::into_inner).0;
    }
    guard
}

/// A wake-up: its descriptor is readable from the first signal until it is cleared (eventfd(2)).
#[derive(Debug)]
pub struct EventFd(OwnedFd);

impl EventFd {
    /// One that nobody has signalled.
    ///
    /// # Errors
    /// When the process has no descriptor left.
    pub fn new() -> io::Result<Self> {
        Ok(Self(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?))
    }

    /// Makes the descriptor readable.
    pub fn signal(&self) {
        // Fails only when the counter is full, and then the descriptor is readable already.
        let _ = rustix::io::write(&self.0, &1_u64.to_ne_bytes());
    }

    /// Clears it; whether it was signalled. Then look at what it was for: a signal from here
    /// on counts for the next time.
    pub fn clear(&self) -> bool {
        // Fails only when there was no signal.
        rustix::io::read(&self.0, &mut [0; 8]).is_ok()
    }
}

impl AsFd for EventFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use std::sync::mpsc::channel;
    use std::thread;
    use std::time::Duration;

    /// Far more than a wake takes.
    const LONG: Duration = Duration::from_secs(60);

    /// A lock with whose guard a thread has panicked.
    fn poisoned(value: u32) -> Mutex<u32> {
        let mutex = Mutex::new(value);
        let panic = || {
            let _held = mutex.lock().unwrap();
            panic!("while it was held");
        };
        assert!(thread::scope(|scope| scope.spawn(panic).join()).is_err() && mutex.is_poisoned());
        mutex
    }

    #[test]
    fn a_signal_is_seen_until_it_is_cleared_however_often_it_was_rung() {
        let wake_up = EventFd::new().unwrap();
        let is_heard = || {
            let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
            poll(&mut [PollFd::new(&wake_up, PollFlags::IN)], Some(&at_once)).unwrap() == 1
        };
        assert!(!is_heard());
        wake_up.signal();
        wake_up.signal();
        assert!(is_heard() && is_heard());
        wake_up.clear();
        assert!(!is_heard());
        wake_up.clear();
        wake_up.signal();
        assert!(is_heard());
    }

    #[test]
    fn a_panic_elsewhere_does_not_spoil_a_lock() {
        assert_eq!(*lock(&poisoned(7)), 7);
    }

    #[test]
    fn a_panic_elsewhere_ends_no_wait_before_its_time() {
        type Wait = fn(&Condvar, &Mutex<u32>, &mut dyn FnMut(&mut u32) -> bool) -> u32;
        let waits: [Wait; 2] = [
            |changed, mutex, wants| *wait_while(changed, lock(mutex), wants),
            |changed, mutex, wants| *wait_until(Instant::now() + LONG, changed, lock(mutex), wants),
        ];
        for wait in waits {
            let (changed, mutex) = (Condvar::new(), poisoned(0));
            let (asked, was_asked) = channel();
            thread::scope(|scope| {
                let mut wants = move |value: &mut u32| {
                    asked.send(*value).unwrap();
                    *value < 2
                };
                let (changed, mutex) = (&changed, &mutex);
                let waiting = scope.spawn(move || wait(changed, mutex, &mut wants));
                // It asks with the lock held: who gets the lock after that finds it waiting,
                // and it asks again only if the first wake was not the end.
                while was_asked.recv().unwrap() < 1 {
                    *lock(mutex) = 1;
                    changed.notify_all();
                }
                *lock(mutex) = 2;
                changed.notify_all();
                assert_eq!(waiting.join().unwrap(), 2);
            });
        }
    }

    #[test]
    fn a_wait_ends_at_its_time() {
        let (changed, mutex) = (Condvar::new(), poisoned(0));
        let until = Instant::now() + Duration::from_millis(50);
        assert_eq!(*wait_until(until, &changed, lock(&mutex), |value| *value == 0), 0);
        assert!(Instant::now() >= until);
        assert_eq!(*wait_until(Instant::now() + LONG, &changed, lock(&mutex), |_| false), 0);
    }
}
