//! Findings that have lasted: one that comes and goes with each look is no news.

use super::{Finding, Level};
use std::collections::BTreeMap;

/// Looks in a row after which something has come, or has gone.
const LASTS: u32 = 2;

/// How often something comes until it is there for as long as it goes on coming.
const OFTEN: usize = 3;

/// Looks within which it comes that often, and after which one that did has gone: an hour, and a
/// quarter of one.
const HOUR: u64 = 180;
const QUIET: u32 = 45;

/// Looks after which something that an earlier server has told of has gone: a new one knows
/// little in its first minutes, of certificates and of apps that end again and again.
const BEGINNING: u32 = 9;

/// What was seen of one finding.
#[derive(Default)]
struct Seen {
    /// Looks in a row with it, or without.
    with: u32,
    without: u32,
    /// The looks at which it came.
    came: Vec<u64>,
    /// As it is shown.
    shown: Option<Finding>,
    /// Whether an earlier server has told of it, and this one has not seen it yet.
    is_told: bool,
}

/// All that was seen.
#[derive(Default)]
pub struct Steady {
    looks: u64,
    seen: BTreeMap<String, Seen>,
}

impl Steady {
    /// Goes on from what an earlier server has told.
    pub fn after(told: impl IntoIterator<Item = Finding>) -> Self {
        let seen = |told: Finding| {
            (told.id.clone(), Seen { shown: Some(told), is_told: true, ..Seen::default() })
        };
        Self { looks: 0, seen: told.into_iter().map(seen).collect() }
    }

    /// What there is to say after one more look: what is well as it was found, what is not once it
    /// has lasted.
    ///
    /// Of those in `unknown` it is not known whether they have gone.
    pub fn look(&mut self, found: &[Finding], unknown: &[&str]) -> Vec<Finding> {
        self.looks += 1;
        let is_bad = |finding: &&Finding| finding.level != Level::Pass;
        for finding in found.iter().filter(is_bad) {
            self.seen.entry(finding.id.clone()).or_default();
        }
        for (id, seen) in &mut self.seen {
            let found = found.iter().filter(is_bad).find(|finding| finding.id == *id);
            if found.is_some() || !unknown.contains(&id.as_str()) {
                seen.look(self.looks, found);
            }
        }
        self.seen.retain(|_, seen| seen.shown.is_some() || !seen.came.is_empty());
        let mut said: Vec<Finding> = self.bad().cloned().collect();
        said.sort_by_key(|finding| std::cmp::Reverse(finding.level));
        let well = found.iter().filter(|finding| finding.level == Level::Pass);
        said.extend(
            well.filter(|well| self.bad().all(|bad| bad.id != well.id))
                .cloned()
                .collect::<Vec<_>>(),
        );
        said
    }

    fn bad(&self) -> impl Iterator<Item = &Finding> {
        self.seen.values().filter_map(|seen| seen.shown.as_ref())
    }
}

impl Seen {
    fn look(&mut self, now: u64, found: Option<&Finding>) {
        self.came.retain(|look| look + HOUR > now);
        let Some(finding) = found else {
            (self.with, self.without) = (0, self.without + 1);
            let lasts = match self.came.len() {
                _ if self.is_told => BEGINNING,
                OFTEN.. => QUIET,
                _ => LASTS,
            };
            if self.without >= lasts {
                self.shown = None;
            }
            return;
        };
        if self.with == 0 {
            self.came.push(now);
        }
        (self.with, self.without, self.is_told) = (self.with + 1, 0, false);
        if self.shown.is_some() || self.with >= LASTS || self.came.len() >= OFTEN {
            self.shown = Some(finding.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(steady: &mut Steady, looks: &str) -> String {
        let bad = Finding::fail("disk", "full", "df");
        let look = |look| match look {
            'x' => steady.look(std::slice::from_ref(&bad), &[]),
            '?' => steady.look(&[], &["disk"]),
            _ => steady.look(&[Finding::pass("disk", "well")], &[]),
        };
        let said = looks.chars().map(look);
        let is_bad = |said: &Vec<Finding>| said.iter().any(|one| one.level != Level::Pass);
        said.map(|said| if is_bad(&said) { 'x' } else { '.' }).collect()
    }

    #[test]
    fn p28_what_lasts_comes_and_goes_once_and_a_moment_is_nothing() {
        let mut steady = Steady::default();
        assert_eq!(run(&mut steady, "..x....xxxx.."), "........xxxx.");
    }

    #[test]
    fn p28_what_comes_three_times_is_there_until_a_quarter_of_an_hour_without_it() {
        let mut steady = Steady::default();
        assert_eq!(run(&mut steady, "x..x..x..x.."), "......xxxxxx");
        let quiet = ".".repeat(50);
        let said = run(&mut steady, &quiet);
        assert_eq!(said.matches('x').count(), 42, "{said}");
        // What an earlier server has told of is no news, and gone when it stays away.
        let mut next = Steady::after([Finding::fail("disk", "full", "df")]);
        assert_eq!(run(&mut next, "....x.."), "xxxxxx.");
        let mut next = Steady::after([Finding::fail("disk", "full", "df")]);
        assert_eq!(run(&mut next, &".".repeat(10)), "xxxxxxxx..");
        // What is not known has not gone.
        let mut next = Steady::after([Finding::fail("disk", "full", "df")]);
        assert_eq!(run(&mut next, &"?".repeat(30)), "x".repeat(30));
        // Three times in many hours is three moments.
        let rare = format!("x{0}x{0}x{0}", ".".repeat(200));
        assert!(!run(&mut Steady::default(), &rare).contains('x'));
    }
}
