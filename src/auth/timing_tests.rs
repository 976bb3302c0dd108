//! Shows that comparing tokens takes the same time whatever differs (P6).
//!
//! Two inputs are timed in random order, many thousand times; Welch's t says
//! whether their mean times differ. The same procedure must find the difference
//! in a comparison that leaves early, or it would prove nothing.

use super::token::{Digest, equal};
use std::hint::black_box;
use std::time::Instant;

/// Timings of each measurement, both inputs together.
const SAMPLES: usize = 20_000;
/// Calls timed as one, so that the clock's own step does not matter.
const BATCH: u32 = 8;
/// The share of all timings that is looked at: the slow rest is the machine's noise.
const KEPT: f64 = 0.7;
/// By chance |t| exceeds this once in more than a million measurements.
const LIMIT: f64 = 5.0;
/// A difference must show in each of these measurements, and always the same way, to
/// count. A busy machine may fake one of them, not all.
const REPETITIONS: usize = 12;

/// Whether the time that `work` takes tells the two inputs apart.
fn tells_apart(inputs: [&[u8]; 2], work: &dyn Fn(&[u8])) -> bool {
    let first = welch_t(inputs, work);
    let same = |t: f64| t.abs() > LIMIT && t.is_sign_positive() == first.is_sign_positive();
    same(first) && (1..REPETITIONS).all(|_| same(welch_t(inputs, work)))
}

fn welch_t(inputs: [&[u8]; 2], work: &dyn Fn(&[u8])) -> f64 {
    assert_eq!(inputs[0].len(), inputs[1].len());
    let mut order = vec![0; SAMPLES];
    getrandom::fill(&mut order).unwrap();
    // Both inputs are read from the same place, so that memory makes no difference.
    let mut input = inputs[0].to_vec();
    let mut timings = Vec::with_capacity(SAMPLES);
    for coin in order {
        let class = usize::from(coin & 1 == 1);
        input.copy_from_slice(inputs[class]);
        let begun = Instant::now();
        for _ in 0..BATCH {
            work(black_box(&input));
        }
        timings.push((u32::try_from(begun.elapsed().as_nanos()).unwrap_or(u32::MAX), class));
    }
    let mut sorted: Vec<_> = timings.iter().map(|(nanos, _)| *nanos).collect();
    sorted.sort_unstable();
    let slowest = sorted[(SAMPLES as f64 * KEPT) as usize];
    timings.retain(|(nanos, _)| *nanos <= slowest);
    let [a, b] = [0, 1].map(|class| moments(&timings, class));
    let spread = (a.variance / a.count + b.variance / b.count).sqrt();
    if spread == 0.0 {
        // Every timing of a class alike: a coarse clock. Any difference is then one for sure.
        return if a.mean.total_cmp(&b.mean).is_eq() { 0.0 } else { f64::INFINITY };
    }
    (a.mean - b.mean) / spread
}

struct Moments {
    count: f64,
    mean: f64,
    variance: f64,
}

fn moments(timings: &[(u32, usize)], class: usize) -> Moments {
    let of_class = || timings.iter().filter(|(_, c)| *c == class).map(|(n, _)| f64::from(*n));
    let count = of_class().count() as f64;
    let mean = of_class().sum::<f64>() / count;
    let variance = of_class().map(|n| (n - mean).powi(2)).sum::<f64>() / (count - 1.0);
    Moments { count, mean, variance }
}

/// How it must not be done.
fn leaves_early(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len() && one.iter().zip(other).all(|(a, b)| black_box(a) == black_box(b))
}

#[test]
fn p6_the_position_of_the_first_difference_does_not_show_and_the_method_would_see_it() {
    let long = vec![b'x'; 4096];
    let [mut first, mut last] = [long.clone(), long.clone()];
    first[0] = b'y';
    last[4095] = b'y';
    let naive = |presented: &[u8]| {
        black_box(leaves_early(presented, &long));
    };
    assert!(tells_apart([&first, &last], &naive), "the method is blind");
    let digest = Digest::of(&long);
    let ours = |presented: &[u8]| {
        black_box(digest.is_of(presented));
    };
    assert!(!tells_apart([&first, &last], &ours));

    // The same for the comparison alone, where the attacker's luck is in the digests.
    let stored = [0x5a; 32];
    let [mut first, mut last] = [stored; 2];
    first[0] ^= 1;
    last[31] ^= 1;
    let alone = |presented: &[u8]| {
        black_box(equal(presented.try_into().unwrap(), &stored));
    };
    assert!(!tells_apart([&first, &last], &alone));
    assert!(!tells_apart([&first, &stored], &alone));
}

#[test]
fn p6_whether_the_lengths_agree_does_not_show_and_the_method_would_see_it() {
    let presented = vec![b'x'; 4096];
    // The secret agrees with what is presented but for its last byte, or is one byte longer.
    let mut same_length = presented.clone();
    same_length[4095] = b'y';
    let mut longer = presented.clone();
    longer.push(b'y');
    let naive = |which: &[u8]| {
        let secret = if which[0] == 0 { &same_length } else { &longer };
        black_box(leaves_early(&presented, secret));
    };
    assert!(tells_apart([&[0], &[1]], &naive), "the method is blind");
    let digests = [&same_length, &longer].map(|secret| Digest::of(secret));
    let ours = |which: &[u8]| {
        black_box(digests[usize::from(which[0])].is_of(&presented));
    };
    assert!(!tells_apart([&[0], &[1]], &ours));
    // Short ones of the size of real tokens.
    let token = [b'x'; 70];
    let digests = [&token[..70], &token[..32]].map(Digest::of);
    let ours = |which: &[u8]| {
        black_box(digests[usize::from(which[0])].is_of(&[b'z'; 70]));
    };
    assert!(!tells_apart([&[0], &[1]], &ours));
}
