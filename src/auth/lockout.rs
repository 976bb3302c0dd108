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
use std::collections::{BTreeSet, HashMap};

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
/// Records kept at most. One costs about 340 bytes in the worst case (a test
/// counts), so all of them stay below the 16 MiB of P12; no honest site has
/// this many people who mistype.
pub(super) const CAPACITY: usize = 32_768;
/// Faded records that go with each wrong try: more than one can come in, so
/// the table shrinks by itself, and no single request pays for all of it.
const SWEEP: usize = 2;

/// What one client did wrong.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Record {
    failures: u32,
    /// When its latest lockout ends; 0 when it never had one.
    until: Millis,
    /// Its latest wrong try.
    last: Millis,
}

/// Orders records by how much they matter, the least first: by the end of the lockout, the
/// number of wrong tries, the latest of them. The order needs no clock: without a lockout before
/// any lockout, then by the end of the lockout, which puts all that ran out before all that are
/// in force.
type EvictionOrder = (Millis, u32, Millis, Client);

const fn eviction_order(client: Client, record: Record) -> EvictionOrder {
    (record.until, record.failures, record.last, client)
}

/// What a wrong try led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Failure {
    /// Wrong tries so far, this one included.
    pub(super) failures: u32,
    /// Seconds of the lockout that it started.
    pub(super) lockout_seconds: Option<u32>,
}

/// All records, found by client, by eviction order and by age.
pub(super) struct LockoutTable {
    capacity: usize,
    records: HashMap<Client, Record>,
    by_eviction_order: BTreeSet<EvictionOrder>,
    by_age: BTreeSet<(Millis, Client)>,
}

impl LockoutTable {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            capacity,
            records: HashMap::new(),
            by_eviction_order: BTreeSet::new(),
            by_age: BTreeSet::new(),
        }
    }

    /// Seconds until the client may try again, rounded up; `None` when it may now.
    pub(super) fn locked(&self, client: Client, now: Millis) -> Option<u32> {
        let until = self.records.get(&client)?.until;
        let left = until.checked_sub(now).filter(|left| *left > 0)?;
        Some(u32::try_from(left.div_ceil(1_000)).unwrap_or(u32::MAX))
    }

    /// Counts a wrong try of a client that is not locked out.
    pub(super) fn fail(&mut self, client: Client, now: Millis) -> Failure {
        self.sweep(now);
        let known = self.remove(client).filter(|record| !faded(record.last, now));
        if self.records.len() >= self.capacity {
            self.make_room();
        }
        let failures = known.map_or(0, |record| record.failures).saturating_add(1);
        let lockout = lockout_after(failures);
        let until = lockout.map_or(0, |length| now.saturating_add(length));
        self.insert(client, Record { failures, until, last: now });
        let lockout_seconds = lockout.and_then(|length| u32::try_from(length / 1_000).ok());
        Failure { failures, lockout_seconds }
    }

    /// Forgets a client and says how often it was wrong.
    pub(super) fn forgive(&mut self, client: Client) -> Option<u32> {
        self.remove(client).map(|record| record.failures)
    }

    /// Clients that are locked out, their wrong tries, and the milliseconds
    /// left; the soonest to be free first.
    pub(super) fn in_force(&self, now: Millis) -> impl Iterator<Item = (Client, u32, Millis)> {
        let first = (now.saturating_add(1), 0, 0, Client::V4([0; 4]));
        let in_force = self.by_eviction_order.range(first..);
        in_force.map(move |&(until, failures, _, client)| (client, failures, until - now))
    }

    fn insert(&mut self, client: Client, record: Record) {
        self.by_eviction_order.insert(eviction_order(client, record));
        self.by_age.insert((record.last, client));
        self.records.insert(client, record);
    }

    fn remove(&mut self, client: Client) -> Option<Record> {
        let record = self.records.remove(&client)?;
        self.by_eviction_order.remove(&eviction_order(client, record));
        self.by_age.remove(&(record.last, client));
        Some(record)
    }

    fn sweep(&mut self, now: Millis) {
        for _ in 0..SWEEP {
            match self.by_age.first().copied() {
                Some((last, client)) if faded(last, now) => self.remove(client),
                _ => return,
            };
        }
    }

    /// Drops the record that matters least (P12). No faded one is left when
    /// this is called: [`LockoutTable::sweep`] would have made room already.
    fn make_room(&mut self) {
        if let Some(&(.., least)) = self.by_eviction_order.first() {
            self.remove(least);
        }
    }
}

const fn faded(last: Millis, now: Millis) -> bool {
    now.saturating_sub(last) >= FADE
}

/// The lockout that the n-th wrong try starts.
fn lockout_after(failures: u32) -> Option<Millis> {
    let doublings = failures.checked_sub(FREE_TRIES)?;
    // 2 s doubled nine times is beyond the longest one already.
    Some((FIRST_LOCKOUT << doublings.min(16)).min(LONGEST_LOCKOUT))
}
