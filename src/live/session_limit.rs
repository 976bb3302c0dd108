//! The seats for sessions: never too many, all given up together at the end.

use super::handshake::Refusal;
use crate::model::Client;
use crate::sync::{EventFd, lock, wait_until};
use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

/// The seats for sessions, and what ends them all.
pub(super) struct SessionLimit {
    most: usize,
    most_per_client: usize,
    taken: Mutex<HashMap<Client, usize>>,
    left: Condvar,
    closing: AtomicBool,
    /// Signalled once and never cleared, so that everybody who waits for it hears it.
    wake_up: EventFd,
}

impl SessionLimit {
    pub(super) fn new(most: usize, most_per_client: usize) -> io::Result<Self> {
        let wake_up = EventFd::new()?;
        let (taken, left, closing) = (Mutex::default(), Condvar::new(), AtomicBool::new(false));
        Ok(Self { most, most_per_client, taken, left, closing, wake_up })
    }

    pub(super) fn take(&self, client: Client) -> Result<SessionSlot<'_>, Refusal> {
        let mut taken = lock(&self.taken);
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
        Ok(SessionSlot { seats: self, client })
    }

    #[cfg(test)]
    pub(super) fn taken(&self) -> usize {
        lock(&self.taken).values().sum()
    }

    pub(super) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    /// Readable once [`Self::close`] was called.
    pub(super) const fn wake_up(&self) -> &EventFd {
        &self.wake_up
    }

    pub(super) fn close(&self, within: Duration) -> usize {
        let taken = lock(&self.taken);
        self.closing.store(true, Ordering::Release);
        self.wake_up.signal();
        let until = Instant::now() + within;
        let taken = wait_until(until, &self.left, taken, |taken| !taken.is_empty());
        taken.values().sum()
    }
}

/// A session's seat, given back when dropped.
pub(super) struct SessionSlot<'a> {
    seats: &'a SessionLimit,
    client: Client,
}

impl Drop for SessionSlot<'_> {
    fn drop(&mut self) {
        let mut taken = lock(&self.seats.taken);
        if let Some(own) = taken.get_mut(&self.client) {
            *own -= 1;
            if *own == 0 {
                taken.remove(&self.client);
            }
        }
        self.seats.left.notify_all();
    }
}
