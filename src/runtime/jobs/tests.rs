//! Jobs on their way through time, however that goes.

use super::*;

const HOUR: UnixMillis = 60 * MINUTE;
const DAY: UnixMillis = 24 * HOUR;
/// 1 January 2026, a Thursday.
const NEW_YEAR: UnixMillis = 20_454 * DAY;
/// A time between two looks that never fits into a minute.
const LOOK: UnixMillis = 29_777;

/// A job, and the clock.
struct Site {
    schedule: Schedule,
    last: Option<UnixMillis>,
    before: UnixMillis,
}

impl Site {
    fn new(schedule: &str, now: UnixMillis) -> Self {
        Self { schedule: Schedule::parse(schedule).unwrap(), last: None, before: now }
    }

    /// Looks at the clock; what is due runs.
    fn runs_at(&mut self, now: UnixMillis) -> bool {
        let before = self.before.min(now);
        self.before = now;
        let is_due = due_at(&self.schedule, self.last, (before, now)).is_some();
        if is_due {
            // The row is written a moment later.
            self.last = Some(now + 3);
        }
        is_due
    }

    /// How often it runs in a span of time.
    fn runs(&mut self, from: UnixMillis, to: UnixMillis) -> usize {
        let looks = (0..).map(|n| from + n * LOOK).take_while(|now| *now < to);
        looks.filter(|now| self.runs_at(*now)).count()
    }
}

#[test]
fn a_new_job_waits_for_its_time_and_then_runs_once_each_time() {
    let mut site = Site::new("0 3 * * *", NEW_YEAR + 4 * HOUR);
    assert_eq!(site.runs(NEW_YEAR + 4 * HOUR, NEW_YEAR + DAY + 3 * HOUR), 0);
    assert!(site.runs_at(NEW_YEAR + DAY + 3 * HOUR), "on the dot");
    assert_eq!(site.runs(NEW_YEAR + DAY + 3 * HOUR + 1, NEW_YEAR + 4 * DAY), 2);
    let mut site = Site::new("* * * * *", NEW_YEAR);
    assert_eq!(site.runs(NEW_YEAR, NEW_YEAR + HOUR), 59);
}

#[test]
fn the_29th_of_february_comes_every_four_years() {
    let mut site = Site::new("0 0 29 2 *", NEW_YEAR);
    let days = (0..9 * 365).filter(|day| site.runs_at(NEW_YEAR + day * DAY));
    // 2028 and 2032.
    assert_eq!(days.collect::<Vec<_>>(), [2 * 365 + 31 + 28, 6 * 365 + 1 + 31 + 28]);
}

#[test]
fn what_was_missed_while_nobody_looked_is_caught_up_once() {
    for last in [None, Some(NEW_YEAR - DAY)] {
        let mut site = Site::new("0 3 * * *", NEW_YEAR);
        site.last = last;
        let back = NEW_YEAR + 7 * DAY;
        assert!(site.runs_at(back));
        assert_eq!(site.runs(back, back + 3 * HOUR), 0);
        assert_eq!(site.runs(back + 3 * HOUR, back + DAY), 1);
    }
    // A look that was not noted, because the server was killed or something had to wait.
    let mut site = Site::new("0 3 * * *", NEW_YEAR);
    assert!(site.runs_at(NEW_YEAR + 4 * HOUR));
    for later in [HOUR, 5 * HOUR] {
        site.before = NEW_YEAR;
        assert!(!site.runs_at(NEW_YEAR + 4 * HOUR + later), "it had its run");
    }
    site.before = NEW_YEAR;
    assert!(site.runs_at(NEW_YEAR + DAY + 3 * HOUR), "and has the next one");
}

#[test]
fn a_clock_that_jumps_ahead_runs_each_job_once() {
    let mut site = Site::new("* * * * *", NEW_YEAR);
    assert!(site.runs_at(NEW_YEAR + 400 * DAY));
    assert!(!site.runs_at(NEW_YEAR + 400 * DAY + 1000));
}

#[test]
fn a_clock_that_is_set_back_neither_silences_a_job_nor_runs_it_twice_for_a_minute() {
    let three = NEW_YEAR + 3 * HOUR;
    let mut site = Site::new("0 3 * * *", NEW_YEAR);
    assert!(site.runs_at(three + 200));
    assert!(!site.runs_at(three - 800) && !site.runs_at(three), "it was set back by a second");
    assert_eq!(site.runs(NEW_YEAR + 2 * HOUR, NEW_YEAR + DAY), 0, "by an hour");
    assert_eq!(site.runs(NEW_YEAR + DAY, NEW_YEAR + 2 * DAY), 1, "the next day's");
    // It ran in a year that was none.
    (site.last, site.before) = (Some(NEW_YEAR + 400 * DAY), NEW_YEAR + 400 * DAY);
    assert_eq!(site.runs(NEW_YEAR + 5 * DAY, NEW_YEAR + 6 * DAY), 1);
}
