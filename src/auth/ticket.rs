//! Tickets: each opens one WebSocket once, so that the token stays out of URLs.

use super::token::{Digest, random};
use super::{AuthError, Millis, Session};
use crate::model::Secret;
use data_encoding::HEXLOWER;
use std::collections::VecDeque;

/// How long a ticket is good, in milliseconds: a page load, not a bookmark.
pub const LIFETIME: Millis = 60_000;
/// Tickets kept at most; the oldest goes first. Far more than the dashboard
/// opens in a minute, and 64 KiB of memory.
const CAPACITY: usize = 1024;

struct Ticket {
    /// Only the digest is kept: who reads this memory can open nothing with it.
    digest: Digest,
    session: Session,
    until: Millis,
}

/// The tickets that are out, in the order of their end, since all live equally long.
#[derive(Default)]
pub(super) struct Tickets(VecDeque<Ticket>);

impl Tickets {
    pub(super) fn open(&mut self, session: &Session, now: Millis) -> Result<Secret, AuthError> {
        let ticket = random("", &HEXLOWER)?;
        self.drop_ended(now);
        if self.0.len() >= CAPACITY {
            self.0.pop_front();
        }
        let digest = Digest::of(ticket.expose().as_bytes());
        self.0.push_back(Ticket { digest, session: session.clone(), until: now + LIFETIME });
        Ok(ticket)
    }

    /// Takes a ticket out and gives the session it was opened for, if it is good.
    pub(super) fn take(&mut self, presented: &[u8], now: Millis) -> Option<Session> {
        self.drop_ended(now);
        let digest = Digest::of(presented);
        // Digests may be compared in any way: nobody can choose their beginning.
        let at = self.0.iter().position(|ticket| ticket.digest == digest)?;
        self.0.remove(at).map(|ticket| ticket.session)
    }

    fn drop_ended(&mut self, now: Millis) {
        while self.0.front().is_some_and(|ticket| ticket.until <= now) {
            self.0.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SESSION: Session = Session { epoch: 7 };

    #[test]
    fn a_ticket_opens_once_within_its_time() {
        let mut tickets = Tickets::default();
        let ticket = tickets.open(&SESSION, 0).unwrap();
        let other = tickets.open(&SESSION, 0).unwrap();
        assert_eq!(ticket.expose().len(), 64);
        assert_ne!(ticket, other);
        assert_eq!(tickets.take(b"", 0), None);
        assert_eq!(tickets.take(&ticket.expose().as_bytes()[1..], 0), None);
        assert_eq!(tickets.take(ticket.expose().as_bytes(), LIFETIME - 1), Some(SESSION));
        assert_eq!(tickets.take(ticket.expose().as_bytes(), LIFETIME - 1), None);
        assert_eq!(tickets.take(other.expose().as_bytes(), LIFETIME), None);
        assert!(tickets.0.is_empty());
    }

    #[test]
    fn their_number_is_bounded_and_the_oldest_goes_first() {
        let mut tickets = Tickets::default();
        let all: Vec<_> = (0..=CAPACITY).map(|_| tickets.open(&SESSION, 0).unwrap()).collect();
        assert_eq!(tickets.0.len(), CAPACITY);
        assert_eq!(tickets.take(all[0].expose().as_bytes(), 0), None);
        assert_eq!(tickets.take(all[1].expose().as_bytes(), 0), Some(SESSION));
        assert_eq!(tickets.take(all[CAPACITY].expose().as_bytes(), 0), Some(SESSION));
    }
}
