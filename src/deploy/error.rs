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
    /// A host name cannot be the app's: which field it comes from, and why.
    Host {
        /// `name` or `domains`.
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

impl From<&str> for DeployFailure {
    fn from(sentence: &str) -> Self {
        Self::Failed(sentence.to_owned())
    }
}

impl From<String> for DeployFailure {
    fn from(sentence: String) -> Self {
        Self::Failed(sentence)
    }
}

/// Why a deploy went no further, and the step that it is put down to.
#[derive(Debug)]
pub struct StepFailure {
    /// As it is called in the log; empty before the first.
    pub step: &'static str,
    /// Why.
    pub failure: DeployFailure,
}

impl DeployFailure {
    /// Puts it down to a step.
    pub const fn at(self, step: &'static str) -> StepFailure {
        StepFailure { step, failure: self }
    }
}

impl<T: Into<DeployFailure>> From<T> for StepFailure {
    /// Before the first step.
    fn from(failure: T) -> Self {
        failure.into().at("")
    }
}
