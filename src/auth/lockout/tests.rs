//! What the record of wrong tries promises.

use super::*;
use proptest::prelude::*;

fn v4(number: u32) -> Client {
    Client::V4(number.to_be_bytes())
}

/// Fails as soon as it may, `times` times; the time when the last one was.
fn fail_often(table: &mut LockoutTable, client: Client, mut now: Millis, times: u32) -> Millis {
    for _ in 0..times {
        if let Some(seconds) = table.locked(client, now) {
            now += u64::from(seconds) * 1_000;
        }
        let _ = table.fail(client, now);
    }
    now
}

#[test]
fn p8_five_free_tries_then_2_s_doubling_up_to_15_minutes() {
    let mut table = LockoutTable::new(8);
    let mut now = 10;
    let mut lockouts = Vec::new();
    for n in 1..=20 {
        assert_eq!(table.locked(v4(1), now), None);
        let failure = table.fail(v4(1), now);
        assert_eq!(failure.failures, n);
        lockouts.push(failure.lockout_seconds.unwrap_or(0));
        assert_eq!(table.locked(v4(1), now), failure.lockout_seconds);
        now += u64::from(failure.lockout_seconds.unwrap_or(0)) * 1_000;
    }
    let expected =
        [0, 0, 0, 0, 2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900, 900, 900, 900, 900, 900];
    assert_eq!(lockouts, expected);
}

#[test]
fn p8_what_is_left_is_rounded_up_to_whole_seconds() {
    let mut table = LockoutTable::new(8);
    let now = fail_often(&mut table, v4(1), 0, 5);
    for (after, left) in [(0, Some(2)), (1, Some(2)), (999, Some(2)), (1_000, Some(1))] {
        assert_eq!(table.locked(v4(1), now + after), left);
    }
    assert_eq!(table.locked(v4(1), now + 1_999), Some(1));
    assert_eq!(table.locked(v4(1), now + 2_000), None);
}

#[test]
fn a_record_fades_after_a_day_without_a_wrong_try() {
    let mut table = LockoutTable::new(8);
    let now = fail_often(&mut table, v4(1), 0, 9);
    assert_eq!(table.fail(v4(1), now + FADE - 1).failures, 10);
    assert_eq!(table.fail(v4(1), now + FADE - 1 + FADE).failures, 1);
    let _ = table.fail(v4(2), now + 3 * FADE);
    assert_eq!(table.records.len(), 1, "the faded one is gone");
}

#[test]
fn p12_a_lockout_in_force_outlives_every_new_face() {
    let mut table = LockoutTable::new(4);
    let now = fail_often(&mut table, v4(1), 0, 9);
    for n in 100..200 {
        let _ = table.fail(v4(n), now);
    }
    assert_eq!(table.records.len(), 4);
    assert_eq!(table.locked(v4(1), now), Some(32));
    // The record that matters least made room: a single wrong try goes before four.
    let mut table = LockoutTable::new(2);
    fail_often(&mut table, v4(1), 0, 4);
    for n in 100..200 {
        let _ = table.fail(v4(n), 1_000);
    }
    assert_eq!(table.fail(v4(1), 2_000).failures, 5);
}

#[test]
fn p12_a_million_clients_cost_at_most_16_mib() {
    let mut table = LockoutTable::new(CAPACITY);
    let victim = Client::V6([0x20; 8]);
    let mut now = fail_often(&mut table, victim, 0, 14);
    for n in 0..1_000_000 {
        // Every third one goes on until it is locked out: the worst for the table.
        let times = if n % 3 == 0 { 5 } else { 1 };
        for _ in 0..times {
            let _ = table.fail(v4(n), now);
        }
        now += u64::from(n % 100 == 0);
    }
    assert_eq!(table.records.len(), CAPACITY);
    assert_eq!(table.by_eviction_order.len(), CAPACITY);
    assert_eq!(table.by_age.len(), CAPACITY);
    assert!(table.locked(victim, now).is_some());
    assert!(worst_case(&table) <= 16 * 1024 * 1024, "{} bytes", worst_case(&table));
    assert!(worst_case(&table) / CAPACITY <= 340, "the comment at CAPACITY");
}

/// Bytes that the table can take at most: the hash table's buckets (seven of
/// eight are used, and one byte goes with each), and two B-trees whose nodes
/// have room for 11 keys and hold at least 5, with 12 pointers and a header.
fn worst_case(table: &LockoutTable) -> usize {
    let buckets = (table.records.capacity() * 8 / 7).next_power_of_two();
    let hash = buckets * (size_of::<(Client, Record)>() + 1);
    let node = |key: usize| 11 * key + 12 * 8 + 16;
    let tree = |key: usize| table.capacity.div_ceil(5) * node(key);
    hash + tree(size_of::<EvictionOrder>()) + tree(size_of::<(Millis, Client)>())
}

/// The same promises, written so plainly that they can be checked by reading.
#[derive(Default)]
struct Model {
    records: Vec<(Client, Record)>,
}

impl Model {
    fn locked(&self, client: Client, now: Millis) -> Option<u32> {
        let (_, record) = self.records.iter().find(|(c, _)| *c == client)?;
        let left = (1..=900).find(|s| now + s * 1_000 >= record.until)?;
        (record.until > now).then_some(u32::try_from(left).unwrap())
    }

    fn fail(&mut self, client: Client, now: Millis, capacity: usize) -> Failure {
        let old: Vec<_> = self.records.iter().filter(|(_, r)| now - r.last >= FADE).collect();
        let mut old: Vec<_> = old.into_iter().map(|(c, r)| (r.last, *c)).collect();
        old.sort_unstable();
        for (_, gone) in old.into_iter().take(SWEEP) {
            self.records.retain(|(c, _)| *c != gone);
        }
        let known = self.records.iter().position(|(c, _)| *c == client);
        let known = known.map(|at| self.records.remove(at).1).filter(|r| now - r.last < FADE);
        if self.records.len() == capacity {
            self.make_room(now);
        }
        let failures = known.map_or(0, |r| r.failures) + 1;
        let seconds = match failures {
            0..=4 => None,
            5 => Some(2),
            6 => Some(4),
            7 => Some(8),
            8 => Some(16),
            9 => Some(32),
            10 => Some(64),
            11 => Some(128),
            12 => Some(256),
            13 => Some(512),
            _ => Some(900),
        };
        let until = seconds.map_or(0, |s| now + s * 1_000);
        self.records.push((client, Record { failures, until, last: now }));
        Failure { failures, lockout_seconds: seconds.map(|s| u32::try_from(s).unwrap()) }
    }

    fn make_room(&mut self, now: Millis) {
        let class = |r: &Record| match r.until {
            0 => 0,
            until if until <= now => 1,
            _ => 2,
        };
        let order = |(c, r): &(Client, Record)| {
            let within = if r.until == 0 { u64::from(r.failures) } else { r.until };
            (class(r), within, r.failures, r.last, *c)
        };
        let least = (0..self.records.len()).min_by_key(|i| order(&self.records[*i])).unwrap();
        self.records.remove(least);
    }
}

#[derive(Debug, Clone)]
enum Step {
    Fail(u8),
    Forgive(u8),
    Wait(Millis),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (0u8..8).prop_map(Step::Fail),
        1 => (0u8..8).prop_map(Step::Forgive),
        4 => (0u64..5_000).prop_map(Step::Wait),
        1 => (0..2 * LONGEST_LOCKOUT).prop_map(Step::Wait),
        1 => (0..2 * FADE).prop_map(Step::Wait),
    ]
}

proptest! {
    #[test]
    fn the_table_does_what_a_plain_model_does(
        capacity in 1usize..6,
        steps in proptest::collection::vec(step(), 1..300),
    ) {
        let (mut table, mut model, mut now) = (LockoutTable::new(capacity), Model::default(), 0);
        for step in steps {
            match step {
                Step::Wait(length) => now += length,
                Step::Forgive(n) => {
                    let client = v4(n.into());
                    let at = model.records.iter().position(|(c, _)| *c == client);
                    let expected = at.map(|at| model.records.remove(at).1.failures);
                    prop_assert_eq!(table.forgive(client), expected);
                }
                Step::Fail(n) => {
                    let client = v4(n.into());
                    let locked = model.locked(client, now);
                    prop_assert_eq!(table.locked(client, now), locked);
                    if locked.is_none() {
                        let expected = model.fail(client, now, capacity);
                        prop_assert_eq!(table.fail(client, now), expected);
                    }
                }
            }
            let mut known = model.records.clone();
            known.sort_unstable_by_key(|(client, _)| *client);
            let mut ours: Vec<_> = table.records.iter().map(|(c, r)| (*c, *r)).collect();
            ours.sort_unstable_by_key(|(client, _)| *client);
            prop_assert_eq!(ours, known.clone());
            prop_assert!(table.by_eviction_order.len() == known.len() && table.by_age.len() == known.len());
            known.retain(|(_, r)| r.until > now);
            prop_assert_eq!(table.in_force(now).count(), known.len());
        }
    }
}
