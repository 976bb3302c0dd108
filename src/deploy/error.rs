//! Why the pipeline did not take a request, or went no further with a deploy, in sentences
//! that say what to do.

use crate::model::AnyError;
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
    /// The app's files could not be removed.
    NotRemoved(io::Error),
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
            Self::NotRemoved(error) => write!(f, "could not remove the app's files: {error}"),
        }
    }
}

impl std::error::Error for DeployError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Store(error) => Some(error),
            Self::NotRemoved(error) => Some(error),
            _ => None,
        }
    }
}

impl From<StoreError> for DeployError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// Why a deploy went no further.
#[derive(Debug)]
pub enum DeployFailure {
    /// What the owner is told, with its causes.
    Failed(AnyError),
    /// It was cancelled, or has ended in the database already.
    Cancelled,
}

impl<E: Into<AnyError>> From<E> for DeployFailure {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::failed;

    impl PartialEq for DeployFailure {
        /// By what the owner is told.
        fn eq(&self, other: &Self) -> bool {
            match (self, other) {
                (Self::Failed(one), Self::Failed(other)) => one.to_string() == other.to_string(),
                (Self::Cancelled, Self::Cancelled) => true,
                _ => false,
            }
        }
    }

    #[test]
    fn what_the_owner_is_told_has_the_systems_own_error_at_its_end() {
        let full = || io::Error::from(io::ErrorKind::StorageFull);
        let launched = || -> Result<(), AnyError> { Err(failed("not launched")(full())) };
        let step = || -> Result<(), DeployFailure> { Ok(launched()?) };
        let read = || -> Result<(), DeployFailure> { Ok(Err(StoreError::Disk(full()))?) };
        let failures = [step(), read()].map(|ended| match ended {
            Err(DeployFailure::Failed(error)) => error,
            other => panic!("{other:?}"),
        });
        assert_eq!(failures[0].to_string(), "not launched: no storage space");
        let asked = DeployError::from(StoreError::Disk(full()));
        for error in failures.into_iter().chain([asked.into()]) {
            let mut last: &dyn std::error::Error = &*error;
            while let Some(cause) = last.source() {
                last = cause;
            }
            let kind = last.downcast_ref::<io::Error>().map(io::Error::kind);
            assert_eq!(kind, Some(io::ErrorKind::StorageFull), "{error}");
        }
    }
}
