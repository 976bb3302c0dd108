//! The seats for sessions: never too many, all given up together at the end.

use super::LiveLimits;
use super::handshake::Refusal;
use crate::model::Client;
use crate::sync::{EventFd, lock};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};

/// The code of refusals.
const FULL: &str = "too_many_sessions";

/// A session's seat, which is free again when this is dropped.
pub(super) type SessionSlot = Arc<Client>;

/// The seats for sessions, and what ends them all.
pub(super) struct SessionLimit {
    /// Whose they are; a session has the other end of its own, and is over when that is dropped.
    taken: Mutex<Vec<Weak<Client>>>,
    closing: AtomicBool,
    /// Readable once [`Self::close`] was called: it is never cleared, so that everybody who waits
    /// for it hears it.
    pub wake_up: EventFd,
}

impl SessionLimit {
    pub(super) fn new() -> io::Result<Self> {
        let (taken, closing) = (Mutex::default(), AtomicBool::new(false));
        Ok(Self { taken, closing, wake_up: EventFd::new()? })
    }

    pub(super) fn take(&self, client: Client, limits: &LiveLimits) -> Result<SessionSlot, Refusal> {
        let LiveLimits { sessions, per_client, .. } = *limits;
        let mut taken = lock(&self.taken);
        taken.retain(|seat| seat.strong_count() > 0);
        let own = taken.iter().filter_map(Weak::upgrade).filter(|own| **own == client).count();
        let (status, code, text) = if self.is_closing() {
            (503, "stopping", "the server is stopping; try again in a moment".to_owned())
        } else if taken.len() >= sessions {
            let text =
                format!("all {sessions} live connections are taken; close one and try again");
            (503, FULL, text)
        } else if own >= per_client {
            let text =
                format!("this address has {per_client} live connections already; close one first");
            (429, FULL, text)
        } else {
            let seat = Arc::new(client);
            taken.push(Arc::downgrade(&seat));
            return Ok(seat);
        };
        Err(Refusal::new(status, code, text).with("Retry-After", 5))
    }

    pub(super) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    pub(super) fn close(&self) {
        self.closing.store(true, Ordering::Release);
        self.wake_up.signal();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl SessionLimit {
        /// How many there are.
        pub fn taken(&self) -> usize {
            lock(&self.taken).iter().filter(|seat| seat.strong_count() > 0).count()
        }
    }
}
