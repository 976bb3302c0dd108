//! A moment as date and time in UTC, for people who read logs.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

/// Date and time in UTC, to the second, as RFC 3339 has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Utc(String);

impl Utc {
    /// Now, by the system's clock.
    pub fn now() -> Self {
        Self::at(SystemTime::now())
    }

    /// This moment; what lies before 1970 becomes its first second.
    pub fn at(time: SystemTime) -> Self {
        let seconds = time.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
        let (days, clock) = (seconds / 86_400, seconds % 86_400);
        let (year, month, day) = date_of(days);
        let (hour, minute, second) = (clock / 3600, clock / 60 % 60, clock % 60);
        Self(format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z"))
    }

    /// For programs: `2026-11-21T17:05:33Z`.
    pub fn rfc_3339(self) -> String {
        self.0
    }
}

/// Year, month and day of a day that is counted from 1970.
pub(super) fn date_of(days: u64) -> (u64, u64, u64) {
    // Years counted from 1 March 0000, so that a leap day is a year's last day.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    (year, month, day)
}

impl fmt::Display for Utc {
    /// For people: `2026-11-21 17:05:33 UTC`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.replace('T', " ").replace('Z', " UTC"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn times_are_written_as_dates() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (4_107_542_399, "2100-02-28T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            let utc = Utc::at(UNIX_EPOCH + Duration::from_secs(seconds));
            assert_eq!(utc.to_string(), text.replace('T', " ").replace('Z', " UTC"));
            assert_eq!(utc.rfc_3339(), text);
        }
    }
}
