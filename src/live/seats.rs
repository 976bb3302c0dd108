//! The seats for sessions: never too many, all given up together at the end.

use super::handshake::Refusal;
use crate::model::Client;
use rustix::event::{EventfdFlags, eventfd};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The seats for sessions, and the bell that ends them all.
pub(super) struct Seats {
    most: usize,
    most_per_client: usize,
    taken: Mutex<HashMap<Client, usize>>,
    left: Condvar,
    closing: AtomicBool,
    /// Rung once and never read, so that everybody who waits for it hears it.
    bell: OwnedFd,
}

impl Seats {
    pub(super) fn new(most: usize, most_per_client: usize) -> io::Result<Self> {
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let (taken, left, closing) = (Mutex::default(), Condvar::new(), AtomicBool::new(false));
        Ok(Self { most, most_per_client, taken, left, closing, bell })
    }

    pub(super) fn take(&self, client: Client) -> Result<Seat<'_>, Refusal> {
        let mut taken = self.lock();
        if self.is_closing() {
            return Err(Refusal::closing());
        }
        if taken.values().sum::<usize>() >= self.most {
            return Err(Refusal::full(self.most));
        }
        let own = taken.entry(client).or_insert(0);
        if *own >= self.most_per_client {
            return Err(Refusal::too_many(self.most_per_client));
        }
        *own += 1;
        Ok(Seat { seats: self, client })
    }

    #[cfg(test)]
    pub(super) fn taken(&self) -> usize {
        self.lock().values().sum()
    }

    pub(super) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    /// Readable once [`Self::close`] was called.
    pub(super) fn bell(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }

    pub(super) fn close(&self, within: Duration) -> usize {
        let taken = self.lock();
        self.closing.store(true, Ordering::Release);
        let _ = rustix::io::write(&self.bell, &1u64.to_ne_bytes());
        let waited = self.left.wait_timeout_while(taken, within, |taken| !taken.is_empty());
        let (taken, _) = waited.unwrap_or_else(PoisonError::into_inner);
        taken.values().sum()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Client, usize>> {
        // The count is right at every point, whoever panicked elsewhere.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A session's seat, given back when dropped.
pub(super) struct Seat<'a> {
    seats: &'a Seats,
    client: Client,
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        let mut taken = self.seats.lock();
        if let Some(own) = taken.get_mut(&self.client) {
            *own -= 1;
            if *own == 0 {
                taken.remove(&self.client);
            }
        }
        self.seats.left.notify_all();
    }
}
