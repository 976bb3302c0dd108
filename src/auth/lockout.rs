//! The bounded record of wrong tries (P8, P12).
//!
//! The first [`FREE_TRIES`] wrong tries are only counted. The last of them
//! starts a lockout of [`FIRST_LOCKOUT`]; once that has run out, each further
//! wrong try starts one twice as long, up to [`LONGEST_LOCKOUT`]. What a client
//! does during a lockout changes nothing, so an attacker cannot lengthen a
//! victim's.

#[cfg(test)]
mod tests;

use super::Millis;
use crate::model::Client;
use std::collections::HashMap;

/// Wrong tries that have no consequence: a person pastes the wrong thing twice
/// or three times, never five.
const FREE_TRIES: u32 = 5;
/// The first lockout: hardly felt by a person, 40 times slower for a machine.
const FIRST_LOCKOUT: Millis = 2_000;
/// The longest lockout, 15 minutes: about a hundred guesses a day.
const LONGEST_LOCKOUT: Millis = 15 * 60 * 1_000;
/// A record without a further wrong try for a day is over. A guesser who waits
/// for that gets fewer tries than one who does not.
const FADE: Millis = 24 * 60 * 60 * 1_000;
/// Records kept at most. One costs about 200 bytes in the worst case (a test
/// counts), so all of them stay far below the 16 MiB of P12; no honest site has
/// this many people who mistype.
pub(super) const CAPACITY: usize = 32_768;
/// The share of a full table that makes room at once: one look at all of it, half a
/// millisecond, then pays for four thousand new faces.
const SHARE: usize = 8;

/// What one client did wrong.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Record {
    failures: u32,
    /// When its latest lockout ends; 0 when it never had one.
    until: Millis,
    /// Its latest wrong try.
    last: Millis,
}

/// What a wrong try led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Failure {
    /// Wrong tries so far, this one included.
    pub(super) failures: u32,
    /// Seconds of the lockout that it started.
    pub(super) lockout_seconds: Option<u32>,
}

/// All records.
pub(super) struct LockoutTable {
    capacity: usize,
    records: HashMap<Client, Record>,
}

impl LockoutTable {
    pub(super) fn new(capacity: usize) -> Self {
        Self { capacity, records: HashMap::new() }
    }

    /// Seconds until the client may try again, rounded up; `None` when it may now.
    pub(super) fn locked(&self, client: Client, now: Millis) -> Option<u32> {
        let until = self.records.get(&client)?.until;
        let left = until.checked_sub(now).filter(|left| *left > 0)?;
        Some(u32::try_from(left.div_ceil(1_000)).unwrap_or(u32::MAX))
    }

    /// Counts a wrong try of a client that is not locked out.
    pub(super) fn fail(&mut self, client: Client, now: Millis) -> Failure {
        let known = self.records.remove(&client).filter(|record| !record.has_faded(now));
        if self.records.len() >= self.capacity {
            self.make_room(now);
        }
        let failures = known.map_or(0, |record| record.failures).saturating_add(1);
        let lockout = lockout_after(failures);
        let until = lockout.map_or(0, |length| now.saturating_add(length));
        self.records.insert(client, Record { failures, until, last: now });
        let lockout_seconds = lockout.and_then(|length| u32::try_from(length / 1_000).ok());
        Failure { failures, lockout_seconds }
    }

    /// Forgets a client and says how often it was wrong.
    pub(super) fn forgive(&mut self, client: Client) -> Option<u32> {
        self.records.remove(&client).map(|record| record.failures)
    }

    /// Clients that are locked out, their wrong tries, and the milliseconds
    /// left; the soonest to be free first.
    pub(super) fn in_force(&self, now: Millis) -> Vec<(Client, u32, Millis)> {
        let locked = self.records.iter().filter(|(_, record)| record.until > now);
        let mut locked: Vec<_> = locked.map(|(c, r)| (*c, r.failures, r.until - now)).collect();
        locked.sort_unstable_by_key(|(client, failures, left)| (*left, *failures, *client));
        locked
    }

    /// Drops the records that matter least (P12): those that have faded, then those without a
    /// lockout, then by the end of the lockout, which puts all that ran out before all that are
    /// in force: of these not one goes while an idle one is left.
    fn make_room(&mut self, now: Millis) {
        let worth = |(client, record): (&Client, &Record)| {
            let Record { failures, until, last } = *record;
            (!record.has_faded(now), until, failures, last, *client)
        };
        let mut all: Vec<_> = self.records.iter().map(worth).collect();
        let share = (self.capacity / SHARE).max(1);
        all.select_nth_unstable(share - 1);
        for (.., client) in &all[..share] {
            self.records.remove(client);
        }
    }
}

impl Record {
    const fn has_faded(&self, now: Millis) -> bool {
        now.saturating_sub(self.last) >= FADE
    }
}

/// The lockout that the n-th wrong try starts.
fn lockout_after(failures: u32) -> Option<Millis> {
    let doublings = failures.checked_sub(FREE_TRIES)?;
    // 2 s doubled nine times is beyond the longest one already.
    Some((FIRST_LOCKOUT << doublings.min(16)).min(LONGEST_LOCKOUT))
}
