//! A text that must not be shown: tokens, keys, environment values.

use std::fmt;
use std::ops::RangeInclusive;
use zeroize::Zeroizing;

/// Characters that an admin token may have, pinned or in its file (P4): fewer cannot be
/// defended against guessing, more gain nothing and strain the limits of request heads.
pub const ADMIN_TOKEN_LENGTH: RangeInclusive<usize> = 32..=256;

/// Wiped from memory when dropped, and hidden from `{:?}`, so that it cannot
/// slip into a log line or an error. Reading it is a visible act: [`Secret::expose`].
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes a text into custody.
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// The text itself. Hand it to what needs it, never to a formatter.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(hidden)")
    }
}
