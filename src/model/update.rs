//! An update as its owner asks for it.

/// Which program is to take the place of the installed one.
#[derive(Debug, PartialEq, Eq)]
pub struct Update {
    /// A file, or an address.
    pub source: String,
    /// Its checksum, in hex.
    pub sha256: Option<String>,
    /// It may be of an older version.
    pub may_be_older: bool,
}

/// Where in the data directory the copy of the database is that was made last before a program or
/// its schema changed.
pub const NEWEST_COPY: &str = "before-update/newest";

/// Whether a version comes before another one: `0.9.1` before `0.10.0`.
#[must_use]
pub fn is_older(version: &str, than: &str) -> bool {
    let numbers = |version: &str| -> Vec<u32> {
        version.split('.').map_while(|number| number.parse().ok()).collect()
    };
    numbers(version) < numbers(than)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p30_versions_are_compared_number_by_number() {
        for (old, new) in [("0.1.0", "0.1.1"), ("0.9.9", "0.10.0"), ("0.10.0", "1.0.0")] {
            assert!(is_older(old, new) && !is_older(new, old) && !is_older(old, old), "{old}");
        }
        assert!(is_older("1.0.0-rc1", "1.0.0"));
        assert!(!is_older("0.1.0", ""), "what has no version is older than any");
    }
}
