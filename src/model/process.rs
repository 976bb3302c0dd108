//! The processes that an app declares, by the names that its `Procfile` gives them.

use super::{AppId, Invalid};
use std::fmt;

/// The process that visitors' requests go to.
const WEB: &str = "web";

/// Characters of a name: it stands before each line in the log.
const MAX_NAME: usize = 32;

text_value! {
    /// The name of a process without a port. `web` and `release` mean something else.
    ProcessName, |text| {
        let end = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let word = |b: &u8| end(b) || matches!(b, b'-' | b'_');
        let bytes = text.as_bytes();
        let ends = bytes.first().is_some_and(end) && bytes.last().is_some_and(end);
        if ends && bytes.len() <= MAX_NAME && bytes.iter().all(word) && text != WEB && text != "release" {
            return Ok(text.to_owned());
        }
        Err(Invalid(
            "must be 1 to 32 lower-case letters, digits, dashes and underscores, with neither of \
             the last two at an end, and not web or release",
        ))
    }
}

/// One of an app's processes: `worker.2` is the second of its workers.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ProcessId {
    /// Whose it is.
    pub app: AppId,
    /// Its name.
    pub name: ProcessName,
    /// Which of those with this name, from 1.
    pub number: u32,
}

impl ProcessId {
    /// Whether it is the one that requests go to.
    pub fn is_web(&self) -> bool {
        self.name.as_str() == WEB
    }

    /// What stands before its lines in its app's log, and before those about it. The one that
    /// requests go to has nothing there.
    pub fn label(&self) -> String {
        if self.is_web() { String::new() } else { format!("{self} | ") }
    }
}

impl From<&AppId> for ProcessId {
    /// The one that requests go to.
    fn from(app: &AppId) -> Self {
        Self { app: app.clone(), name: ProcessName(WEB.to_owned()), number: 1 }
    }
}

impl fmt::Display for ProcessId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.name, self.number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_process_is_a_short_word() {
        for good in ["worker", "a", "1", "send-mail", "a_b", &"a".repeat(32)] {
            assert!(ProcessName::parse(good).is_ok(), "{good}");
        }
        for bad in
            ["", "Worker", "-a", "a-", "_a", "a_", "a.b", "a b", "ä", "web", "release", "a\n"]
        {
            assert!(ProcessName::parse(bad).is_err(), "{bad}");
        }
        assert!(ProcessName::parse(&"a".repeat(33)).is_err());
    }
}
