//! Schedules against a child's calendar, and against a search minute by minute.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::ops::RangeInclusive;

fn schedule(text: &str) -> Schedule {
    Schedule::parse(text).unwrap_or_else(|why| panic!("{text}: {why}"))
}

/// Milliseconds of a date, as `2026-02-28 03:00`, found by counting days.
fn at(date: &str) -> UnixMillis {
    let number = |range: std::ops::Range<usize>| date[range].parse::<u64>().unwrap();
    let meant = (number(0..4), number(5..7), number(8..10));
    let days = calendar().position(|day| day == meant).unwrap() as i64;
    let (hour, minute) = (number(11..13) as i64, number(14..16) as i64);
    (days * 1440 + hour * 60 + minute) * MINUTE
}

/// Year, month and day of each day from 1970 on, as a child would count them.
fn calendar() -> impl Iterator<Item = (u64, u64, u64)> {
    (1970_u64..).flat_map(|year| {
        let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        let february = if leap { 29 } else { 28 };
        let months = [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
        (1..)
            .zip(months)
            .flat_map(move |(month, days)| (1..=days).map(move |day| (year, month, day)))
    })
}

#[test]
fn a_schedule_comes_at_its_times_in_utc_and_at_no_other() {
    for (text, after, next) in [
        ("* * * * *", "2026-12-31 23:59", "2027-01-01 00:00"),
        ("0 3 * * *", "2026-03-01 03:00", "2026-03-02 03:00"),
        ("0 3 * * *", "2026-03-01 02:59", "2026-03-01 03:00"),
        ("*/15 8-17 * * mon-fri", "2026-11-27 17:45", "2026-11-30 08:00"),
        ("5,50 0 * * *", "2026-11-27 00:05", "2026-11-27 00:50"),
        ("0 0 * * 7", "2026-11-28 00:00", "2026-11-29 00:00"),
        ("0 0 * * SUN", "2026-11-28 00:00", "2026-11-29 00:00"),
        ("0 0 13 * 5", "2026-11-10 00:00", "2026-11-13 00:00"),
        ("0 0 13 * 5", "2026-11-13 00:00", "2026-11-20 00:00"),
        ("0 0 31 * *", "2026-03-31 00:00", "2026-05-31 00:00"),
        ("0 0 29 2 *", "2026-01-01 00:00", "2028-02-29 00:00"),
        ("0 0 29 feb *", "2096-02-29 00:00", "2104-02-29 00:00"),
        ("@hourly", "2026-11-27 00:05", "2026-11-27 01:00"),
        ("@daily", "2026-11-27 00:00", "2026-11-28 00:00"),
        ("@midnight", "2026-11-27 00:00", "2026-11-28 00:00"),
        ("@weekly", "2026-11-23 00:00", "2026-11-29 00:00"),
        ("@monthly", "2026-11-23 00:00", "2026-12-01 00:00"),
        ("@yearly", "2026-11-23 00:00", "2027-01-01 00:00"),
        ("@Annually", "2026-11-23 00:00", "2027-01-01 00:00"),
        (" 0\t3  * * * ", "2026-03-01 03:00", "2026-03-02 03:00"),
    ] {
        assert_eq!(schedule(text).next_after(at(after)), Some(at(next)), "{text} after {after}");
    }
    assert_eq!(schedule("* * * * *").next_after(1), Some(MINUTE));
    assert_eq!(schedule("* * * * *").next_after(MINUTE - 1), Some(MINUTE));
    assert_eq!(schedule(" 0\t3 *  * * ").as_str(), "0 3 * * *", "one way to write it");
    // A clock that is off by ages is no panic.
    assert_eq!(schedule("@daily").next_after(i64::MAX), None);
    assert!(schedule("@daily").next_after(i64::MIN).is_some());
}

#[test]
fn each_kind_of_nonsense_has_its_sentence() {
    for (text, why) in [
        ("", "five fields"),
        ("every day", "five fields"),
        ("0 3 * *", "five fields"),
        ("0 3 * * * root", "five fields"),
        ("@reboot", "five fields"),
        ("60 3 * * *", "a minute"),
        ("*/0 3 * * *", "a minute"),
        ("*/60 3 * * *", "a minute"),
        ("5/10 3 * * *", "a minute"),
        ("10-5 3 * * *", "a minute"),
        ("1,,2 3 * * *", "a minute"),
        ("-1 3 * * *", "a minute"),
        ("+1 3 * * *", "a minute"),
        ("99999999999999999999 3 * * *", "a minute"),
        ("*/ 3 * * *", "a minute"),
        ("1-2-3 3 * * *", "a minute"),
        ("0 24 * * *", "an hour"),
        ("0 3 0 * *", "a day of the month"),
        ("0 3 32 * *", "a day of the month"),
        ("0 3 * 13 *", "a month"),
        ("0 3 * mon *", "a month"),
        ("0 3 * * 8", "a day of the week"),
        ("0 3 * * sun-x", "a day of the week"),
        ("0 3 30 2 *", "never comes"),
        ("0 3 31 4,jun,9,11 *", "never comes"),
        (&format!("{} 3 * * *", "1,".repeat(200)), "too long"),
    ] {
        let error = Schedule::parse(text).unwrap_err().to_string();
        assert!(error.contains(why), "{text}: {error}");
    }
    assert!(Schedule::parse("0 3 30 2 mon").is_ok(), "each Monday of February");
    let minutes: Vec<_> = (0..60).map(|minute| minute.to_string()).collect();
    assert!(Schedule::parse(&format!("{} * * * *", minutes.join(","))).is_ok());
}

#[test]
fn a_job_has_a_command() {
    assert!(Job::command("./tidy --all").is_ok());
    assert!(Job::command(" ").is_err() && Job::command("a\nb").is_err());
}

/// A field as text, and the values that it stands for.
type Known = (String, BTreeSet<u32>);

fn part(all: RangeInclusive<u32>) -> impl Strategy<Value = Known> {
    let (first, last) = all.into_inner();
    (0..4, first..=last, first..=last, 1..=last).prop_map(move |(kind, a, b, step)| {
        let (a, b) = (a.min(b), a.max(b));
        let each = |range: RangeInclusive<u32>| range.step_by(step as usize).collect();
        match kind {
            0 => ("*".to_owned(), (first..=last).collect()),
            1 => (format!("*/{step}"), each(first..=last)),
            2 => (format!("{a}-{b}/{step}"), each(a..=b)),
            _ => (a.to_string(), BTreeSet::from([a])),
        }
    })
}

fn any_field(all: RangeInclusive<u32>) -> impl Strategy<Value = Known> {
    prop::collection::vec(part(all), 1..3).prop_map(|parts| {
        let text: Vec<_> = parts.iter().map(|(text, _)| text.clone()).collect();
        (text.join(","), parts.into_iter().flat_map(|(_, values)| values).collect())
    })
}

/// The next time, found by looking at one minute after the other.
fn slowly(fields: &[Known; 5], after: UnixMillis) -> Option<UnixMillis> {
    let [minutes, hours, dates, months, weekdays] = fields;
    let has = |field: &Known, value: u64| field.1.contains(&u32::try_from(value).unwrap());
    let either = !dates.0.starts_with('*') && !weekdays.0.starts_with('*');
    let years = 60 * 366;
    for (day, (_, month, date)) in calendar().enumerate().take(years) {
        let weekday = (day as u64 + 4) % 7;
        let by_weekday = has(weekdays, weekday) || weekday == 0 && has(weekdays, 7);
        let by_date = has(dates, date);
        let is_its_day = if either { by_date || by_weekday } else { by_date && by_weekday };
        if !is_its_day || !has(months, month) {
            continue;
        }
        for minute in 0..1440 {
            let time = (day as i64 * 1440 + minute as i64) * MINUTE;
            if time > after && has(hours, minute / 60) && has(minutes, minute % 60) {
                return Some(time);
            }
        }
    }
    None
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn the_next_time_is_the_one_that_a_slow_search_finds(
        fields in [0..=59, 0..=23, 1..=31, 1..=12, 0..=7].map(any_field),
        after in 0..15 * 365 * 1440 * MINUTE,
    ) {
        let text = fields.each_ref().map(|(text, _)| text.as_str()).join(" ");
        let found = slowly(&fields, after);
        match Schedule::parse(&text) {
            Ok(schedule) if found.is_some() => {
                prop_assert_eq!(schedule.next_after(after), found, "{}", text);
            }
            Ok(schedule) => prop_assert!(schedule.next_after(after) > Some(45 * 365 * 1440 * MINUTE)),
            Err(why) => prop_assert!(found.is_none() && why.0.contains("never"), "{text}: {why}"),
        }
    }

    #[test]
    fn no_text_breaks_the_reader(text in ".{0,40}", after in any::<i64>()) {
        if let Ok(schedule) = Schedule::parse(&text) {
            prop_assert!(schedule.next_after(after).is_none_or(|next| next > after));
        }
    }
}
