//! The log's lines about wrong tries: each worth reading, never a flood (P13).
//!
//! One line for the first wrong try of a series, one for each lockout, one when
//! the owner gets in after wrong tries. What is left out in a minute with too
//! many of them is counted in the next line.

use super::Millis;
use super::lockout::Failure;
use crate::model::Client;
use log::Level;

/// How long a window is.
const WINDOW: Millis = 60_000;
/// Lines of one kind in a window: more than anybody reads, and about 2 MB of log
/// in a day of attack by a million addresses. Some are rows of the audit log too.
const MAX_LINES: u32 = 10;

/// Lines of one kind in the present window.
#[derive(Debug, Default)]
struct Window {
    begun: Millis,
    lines: u32,
    left_out: u32,
}

/// A line to write.
pub(super) type Line = (Level, String);

impl Window {
    /// The line, if one more fits, with how many were left out before it.
    fn line(&mut self, now: Millis, level: Level, text: impl FnOnce() -> String) -> Option<Line> {
        if now.saturating_sub(self.begun) >= WINDOW {
            (self.begun, self.lines) = (now, 0);
        }
        if self.lines >= MAX_LINES {
            self.left_out = self.left_out.saturating_add(1);
            return None;
        }
        self.lines += 1;
        let mut text = text();
        if let left_out @ 1.. = std::mem::take(&mut self.left_out) {
            text += &format!(" ({left_out} more lines like this were left out before it)");
        }
        Some((level, text))
    }
}

/// Decides which lines are written. Lockouts have their own window, so that
/// single wrong tries cannot push them out of the log, and so have webhooks.
#[derive(Debug, Default)]
pub(super) struct RateLimitedLog {
    series: Window,
    lockouts: Window,
    hooks: Window,
    ignored: Window,
}

impl RateLimitedLog {
    /// The line for a wrong try, if it deserves one.
    pub(super) fn failure(&mut self, client: Client, what: Failure, now: Millis) -> Option<Line> {
        match (what.lockout_seconds, what.failures) {
            (Some(seconds), failures) => self.lockouts.line(now, Level::Warn, || {
                format!("locked out {client} for {seconds} s after {failures} wrong admin tokens")
            }),
            (None, 1) => {
                self.series.line(now, Level::Warn, || format!("wrong admin token from {client}"))
            }
            (None, _) => None,
        }
    }

    /// The line for a webhook's delivery that proves nothing: its secret may have been
    /// changed at one end only.
    pub(super) fn hook(&mut self, client: Client, now: Millis) -> Option<Line> {
        let text = || format!("a webhook without the app's signature from {client}");
        self.hooks.line(now, Level::Warn, text)
    }

    /// What is said of a delivery that did nothing.
    pub(super) fn ignored(&mut self, now: Millis, text: String) -> Option<Line> {
        self.ignored.line(now, Level::Info, || text)
    }

    /// The line for a sign-in after wrong tries.
    pub(super) fn success(&mut self, client: Client, failures: u32, now: Millis) -> Option<Line> {
        let text = || format!("right admin token from {client} after {failures} wrong ones");
        self.series.line(now, Level::Info, text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(n: u32) -> Client {
        Client::V4(n.to_be_bytes())
    }

    #[test]
    fn p13_the_first_of_a_series_each_lockout_and_a_success_get_a_line() {
        let mut notices = RateLimitedLog::default();
        let mut line = |failures, lockout_seconds| {
            let what = Failure { failures, lockout_seconds };
            notices.failure(client(1), what, 0).map(|(_, line)| line)
        };
        assert_eq!(line(1, None).as_deref(), Some("wrong admin token from 0.0.0.1"));
        assert_eq!(line(2, None), None);
        let lockout = "locked out 0.0.0.1 for 2 s after 5 wrong admin tokens";
        assert_eq!(line(5, Some(2)).as_deref(), Some(lockout));
        let success = notices.success(client(1), 5, 0).unwrap().1;
        assert_eq!(success, "right admin token from 0.0.0.1 after 5 wrong ones");
    }

    #[test]
    fn a_million_attackers_do_not_flood_the_log() {
        let mut notices = RateLimitedLog::default();
        let (mut lines, mut hooks) = (0, 0);
        for n in 0..1_000_000 {
            let what = Failure { failures: 1, lockout_seconds: None };
            lines += u32::from(notices.failure(client(n), what, 5).is_some());
            hooks += u32::from(notices.hook(client(n), 5).is_some());
        }
        assert_eq!((lines, hooks), (MAX_LINES, MAX_LINES));
        let lockout = Failure { failures: 5, lockout_seconds: Some(2) };
        assert!(notices.failure(client(1), lockout, 5).is_some(), "lockouts are still told");
        let first = Failure { failures: 1, lockout_seconds: None };
        let next = notices.failure(client(1), first, 5 + WINDOW).unwrap().1;
        assert!(next.contains("(999990 more lines"), "{next}");
    }
}
