//! The seats for sessions: never too many, all given up together at the end.

use super::LiveLimits;
use super::handshake::Refusal;
use crate::model::Client;
use crate::sync::{EventFd, lock, wait_until};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

/// The status and the code of refusals.
const UNAVAILABLE: u16 = 503;
const FULL: &str = "too_many_sessions";

/// The seats for sessions, and what ends them all.
pub(super) struct SessionLimit {
    taken: Mutex<Vec<Client>>,
    left: Condvar,
    closing: AtomicBool,
    /// Readable once [`Self::close`] was called: it is never cleared, so that everybody who waits
    /// for it hears it.
    pub wake_up: EventFd,
}

impl SessionLimit {
    pub(super) fn new() -> io::Result<Self> {
        let wake_up = EventFd::new()?;
        let (taken, left, closing) = (Mutex::default(), Condvar::new(), AtomicBool::new(false));
        Ok(Self { taken, left, closing, wake_up })
    }

    pub(super) fn take(
        &self,
        client: Client,
        limits: &LiveLimits,
    ) -> Result<SessionSlot<'_>, Refusal> {
        let mut taken = lock(&self.taken);
        if self.is_closing() {
            let text = "the server is stopping; try again in a moment";
            return Err(Refusal::new(UNAVAILABLE, "stopping", text).with("Retry-After", 5));
        }
        let LiveLimits { sessions, per_client, .. } = limits;
        if taken.len() >= *sessions {
            let text =
                format!("all {sessions} live connections are taken; close one and try again");
            return Err(Refusal::new(UNAVAILABLE, FULL, text).with("Retry-After", 5));
        }
        if taken.iter().filter(|own| **own == client).count() >= *per_client {
            let text =
                format!("this address has {per_client} live connections already; close one first");
            let refusal = Refusal::new(429, FULL, text);
            return Err(refusal.with("Retry-After", 5));
        }
        taken.push(client);
        Ok(SessionSlot { seats: self, client })
    }

    #[cfg(test)]
    pub(super) fn taken(&self) -> usize {
        lock(&self.taken).len()
    }

    pub(super) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    pub(super) fn close(&self, within: Duration) -> usize {
        let taken = lock(&self.taken);
        self.closing.store(true, Ordering::Release);
        self.wake_up.signal();
        let until = Instant::now() + within;
        let taken = wait_until(until, &self.left, taken, |taken| !taken.is_empty());
        taken.len()
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
        if let Some(own) = taken.iter().position(|client| *client == self.client) {
            taken.swap_remove(own);
        }
        self.seats.left.notify_all();
    }
}
