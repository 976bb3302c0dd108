//! When a job runs: the five fields of cron, in UTC.

use super::utc::date_of;
use super::{AppName, Invalid, ShellCommand, UnixMillis, number};
use serde::{Deserialize, Serialize};

/// Milliseconds of a minute: no schedule is finer.
pub const MINUTE: UnixMillis = 60_000;

/// Jobs that one list may have; real apps have a handful.
pub const MAX_JOBS: usize = 20;

/// Minutes of a day.
const DAY: u64 = 24 * 60;

/// The days after which the calendar repeats itself, 400 years: what does not come in them never
/// comes.
const CALENDAR: u64 = 146_097;

const FORM: &str = "must have five fields such as `0 3 * * *` (minute, hour, day of the month, \
     month and day of the week, in UTC), or be @hourly, @daily, @weekly, @monthly or @yearly";

/// What one field may hold: its least and its largest value, their names from the least on, and
/// what is said of another.
type Field = (u32, u32, &'static str, &'static str);

const FIELDS: [Field; 5] = [
    (0, 59, "", "has a minute that is none: 0 to 59, such as 5, 0,30, 10-20 or */15"),
    (0, 23, "", "has an hour that is none: 0 to 23, such as 3, 6,18, 8-17 or */2"),
    (1, 31, "", "has a day of the month that is none: 1 to 31, such as 1, 1,15 or 1-7"),
    (1, 12, MONTHS, "has a month that is none: 1 to 12 or jan to dec, such as 6 or jun-aug"),
    (0, 7, DAYS, "has a day of the week that is none: 0 to 7 or sun to sat, such as mon-fri"),
];
const MONTHS: &str = "jan feb mar apr may jun jul aug sep oct nov dec";
const DAYS: &str = "sun mon tue wed thu fri sat";

text_value! {
    /// When a job runs, as crontab(5) has it: of a day of the month and a day of the week either
    /// counts, unless one of them begins with `*`. Times are in UTC.
    Schedule, |text| {
        let words: Vec<_> = text.split_whitespace().map(str::to_ascii_lowercase).collect();
        let text = words.join(" ");
        // Each minute of an hour by its number takes 169.
        if text.len() > 200 {
            return Err(Invalid("is too long: at most 200 bytes"));
        }
        read(&text)?;
        match Self(text).next_after(0) {
            None => Err(Invalid("never comes: none of its months has such a day")),
            Some(_) => Ok(words.join(" ")),
        }
    }
}

impl Schedule {
    /// The first whole minute after a moment at which it comes; `None` where the clock ends.
    pub fn next_after(&self, after: UnixMillis) -> Option<UnixMillis> {
        let ([minutes, hours, dates, months, weekdays], either) = read(&self.0).ok()?;
        let has_day = |day: &u64| {
            let (_, month, date) = date_of(*day);
            // The first day of 1970 was a Thursday.
            let (by_date, by_weekday) = (has(dates, date), has(weekdays, (day + 4) % 7));
            let has_day = if either { by_date || by_weekday } else { by_date && by_weekday };
            has(months, month) && has_day
        };
        let first = u64::try_from(after / MINUTE).unwrap_or(0) + 1;
        let today = first / DAY;
        let next = (today..=today + CALENDAR).filter(has_day).find_map(|day| {
            let mut all = (day * DAY).max(first)..(day + 1) * DAY;
            all.find(|minute| has(hours, minute / 60 % 24) && has(minutes, minute % 60))
        })?;
        i64::try_from(next).ok()?.checked_mul(MINUTE)
    }
}

const fn has(bits: u64, value: u64) -> bool {
    bits >> value & 1 == 1
}

/// The values of each field as bits, and whether a day of the month or of the week is enough.
fn read(text: &str) -> Result<([u64; 5], bool), Invalid> {
    let text = match text {
        "@hourly" => "0 * * * *",
        "@daily" | "@midnight" => "0 0 * * *",
        "@weekly" => "0 0 * * 0",
        "@monthly" => "0 0 1 * *",
        "@yearly" | "@annually" => "0 0 1 1 *",
        text => text,
    };
    let words: Vec<_> = text.split(' ').collect();
    let fields: [&str; 5] = words.try_into().map_err(|_| Invalid(FORM))?;
    let mut bits = [0; 5];
    for ((bits, text), field) in bits.iter_mut().zip(fields).zip(&FIELDS) {
        *bits = values(text, field).ok_or(Invalid(field.3))?;
    }
    // Sunday goes by two numbers.
    bits[4] |= bits[4] >> 7;
    Ok((bits, !fields[2].starts_with('*') && !fields[4].starts_with('*')))
}

/// The values that a field's text stands for, as bits; `None` where it is nonsense.
fn values(text: &str, (first, last, names, _): &Field) -> Option<u64> {
    let value = |word: &str| {
        let named = (*first..).zip(names.split_whitespace()).find(|(_, name)| *name == word);
        let value = named.map_or_else(|| number(word), |(value, _)| Some(value))?;
        (*first..=*last).contains(&value).then_some(value)
    };
    let mut bits = 0;
    for part in text.split(',') {
        let (range, step) = part.split_once('/').unwrap_or((part, "1"));
        let (from, to) = match range.split_once('-') {
            Some((from, to)) => (value(from)?, value(to)?),
            None if range == "*" => (*first, *last),
            // Programs disagree about what `5/10` means.
            None if range != part => return None,
            None => (value(range)?, value(range)?),
        };
        let step = number(step).filter(|step| (1..=*last).contains(step))?;
        if from > to {
            return None;
        }
        (from..=to).step_by(step as usize).for_each(|value| bits |= 1 << value);
    }
    Some(bits)
}

/// A job's name: a word for addresses and logs, as an app's is.
pub type JobName = AppName;

/// A command that an app has run at its times.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// Its name, the only one in its list.
    pub name: JobName,
    /// What is run.
    pub command: ShellCommand,
    /// When.
    pub schedule: Schedule,
}

impl Job {
    /// Reads a job's command, which nothing else would tell.
    ///
    /// # Errors
    /// [`Invalid`] with the rule that was broken.
    pub fn command(text: &str) -> Result<ShellCommand, Invalid> {
        let is_there = !text.trim().is_empty();
        if is_there { ShellCommand::parse(text) } else { Err(Invalid("must not be empty")) }
    }
}

#[cfg(test)]
mod tests;
