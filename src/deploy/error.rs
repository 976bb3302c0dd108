//! Why the pipeline did not take a request, or went no further with a deploy, in sentences
//! that say what to do.

use crate::store::StoreError;
use std::fmt;
use std::io;

/// Why the pipeline did not take a request.
#[derive(Debug)]
pub enum DeployError {
    /// No such app.
    NoApp,
    /// The app has no live release that could be started.
    NothingToStart,
    /// The deploy has no release to go back to.
    NoRelease,
    /// The deploy has ended and can no longer be cancelled.
    Ended,
    /// This machine cannot run apps; the sentence says why and what to do.
    Runtime(String),
    /// A host name or a port cannot be the app's: which field it comes from, and why.
    Host {
        /// `name`, `domains` or `port`.
        field: &'static str,
        /// Why not.
        sentence: String,
    },
    /// The database did not do its part.
    Store(StoreError),
    /// The system did not do its part: what failed, and why.
    Io(&'static str, io::Error),
}

impl fmt::Display for DeployError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoApp => f.write_str("there is no such app"),
            Self::NothingToStart => f.write_str("the app has no live release; deploy it first"),
            Self::NoRelease => f.write_str(
                "this deploy has no release to go back to: it was never live, or too many came \
                 after it",
            ),
            Self::Ended => f.write_str(
                "this deploy has ended already; stop the app, or go back to an earlier release",
            ),
            Self::Runtime(sentence) | Self::Host { sentence, .. } => f.write_str(sentence),
            Self::Store(error) => error.fmt(f),
            Self::Io(what, error) => write!(f, "could not {what}: {error}"),
        }
    }
}

impl std::error::Error for DeployError {}

impl From<StoreError> for DeployError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// Why a deploy went no further.
#[derive(Debug, PartialEq, Eq)]
pub enum DeployFailure {
    /// The sentence for the owner.
    Failed(String),
    /// It was cancelled, or has ended in the database already.
    Cancelled,
}

impl<T: Into<String>> From<T> for DeployFailure {
    fn from(sentence: T) -> Self {
        Self::Failed(sentence.into())
    }
}
