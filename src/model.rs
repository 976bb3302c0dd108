//! Values that cannot be made wrong: a function that gets one needs no further check.
//!
//! Parse, don't validate: text from outside becomes one of these types once, at
//! the edge, or an [`Invalid`] that says what to write instead. This room uses
//! nothing of ours and does no I/O.

/// A text that keeps a rule: what its check makes of it is kept.
macro_rules! text_value {
    ($(#[$doc:meta])* $name:ident, $read:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
        pub struct $name(String);

        impl $name {
            /// Reads the value.
            ///
            /// # Errors
            /// [`Invalid`](crate::model::Invalid) with the rule that was broken.
            pub fn parse(text: &str) -> Result<Self, $crate::model::Invalid> {
                let read: fn(&str) -> Result<String, $crate::model::Invalid> = $read;
                read(text).map(Self)
            }

            /// The value as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                $crate::model::checked(from, "must be a text", |text: String| Self::parse(&text))
            }
        }
    };
}

mod any_error;
mod backups;
mod client;
mod domain;
mod fields;
mod limits;
mod percent;
mod process;
mod repo;
mod routing;
mod schedule;
mod secret;
mod state;
mod update;
mod utc;

pub use any_error::{AnyError, failed};
pub use backups::Backups;
pub use client::{Cidr, Client, Trust, is_public};
pub use domain::{Domain, MAX_DOMAINS, is_host};
pub use fields::{
    AppName, EnvName, EnvValue, HealthPath, MAX_APP_NAME, MAX_ENV_TOTAL, MAX_ENV_VARS, RootDir,
    ShellCommand,
};
pub use limits::{
    CpuPercent, FixedPort, HealthTimeout, HostSocket, MAX_HOST_SOCKETS, MaxProcesses, MemoryMb,
    Scale,
};
pub use percent::percent_decoded;
pub use process::{ProcessId, ProcessName};
pub use repo::{Branch, RepoUrl};
pub use routing::Routing;
pub use schedule::{Job, JobName, MAX_JOBS, MINUTE, Schedule};
pub use secret::{ADMIN_TOKEN_LENGTH, Secret};
pub use state::{AppStatus, DeployStatus, Trigger, Wanted};
pub use update::{NEWEST_COPY, Update, is_older};
pub use utc::Utc;

use serde::{Deserialize, Deserializer, de::Error as _};
use std::fmt;
use std::str::FromStr;
use std::time::{SystemTime, UNIX_EPOCH};

/// Why a text is not the value it should be. The sentence is safe to show to
/// the client: it never repeats the rejected text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invalid(pub &'static str);

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Invalid {}

/// The identifiers' alphabet: lower-case letters and digits without those that
/// look alike. 32 of them, so five random bits choose one without bias.
const ID_ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";

/// Characters in an identifier: 50 random bits, plenty for names that are not
/// secrets and few enough to read aloud.
const ID_LENGTH: usize = 10;

text_value! {
    /// Names an app for ever, also when its owner renames it.
    AppId, identifier
}

text_value! {
    /// Names one deploy, and the release that it makes.
    DeployId, identifier
}

text_value! {
    /// Names one run of a command in an app's place.
    RunId, identifier
}

fn identifier(text: &str) -> Result<String, Invalid> {
    if text.len() == ID_LENGTH && text.bytes().all(|b| ID_ALPHABET.contains(&b)) {
        Ok(text.to_owned())
    } else {
        Err(Invalid("is not an identifier: ten lower-case letters and digits"))
    }
}

impl AppId {
    /// Makes an identifier out of ten random bytes.
    pub fn from_random(bytes: [u8; ID_LENGTH]) -> Self {
        Self(characters(bytes))
    }
}

impl DeployId {
    /// Makes an identifier out of ten random bytes.
    pub fn from_random(bytes: [u8; ID_LENGTH]) -> Self {
        Self(characters(bytes))
    }
}

impl RunId {
    /// Makes an identifier out of ten random bytes.
    pub fn from_random(bytes: [u8; ID_LENGTH]) -> Self {
        Self(characters(bytes))
    }
}

fn characters(bytes: [u8; ID_LENGTH]) -> String {
    bytes.iter().map(|b| char::from(ID_ALPHABET[usize::from(b & 31)])).collect()
}

/// A number in digits alone: the standard library's own parser takes a plus sign too.
pub fn number<T: FromStr>(text: &str) -> Option<T> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok())?
}

/// Reads a stored or sent value of a basic type `B`, then judges it.
fn checked<'de, B: Deserialize<'de>, T, D: Deserializer<'de>>(
    from: D,
    kind: &'static str,
    judge: impl FnOnce(B) -> Result<T, Invalid>,
) -> Result<T, D::Error> {
    let basic = B::deserialize(from).map_err(|_| D::Error::custom(kind))?;
    judge(basic).map_err(D::Error::custom)
}

/// Milliseconds since 1970 UTC, as the API and the database write times.
pub type UnixMillis = i64;

/// The time now, in milliseconds since 1970 UTC.
pub fn unix_millis() -> UnixMillis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identifier_survives_a_round_trip_and_nothing_else_is_one() {
        let id = AppId::from_random([0, 31, 32, 255, 7, 8, 9, 10, 11, 12]);
        assert_eq!(AppId::parse(id.as_str()), Ok(id));
        for bad in ["", "short", "UPPERCASE9", "has-dashes", "../../etc1", "toolongtoolong"] {
            assert!(AppId::parse(bad).is_err(), "{bad}");
        }
    }
}
