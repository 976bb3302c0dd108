//! Errors on their way up through the rooms, with what failed in front of the cause.

use std::error::Error;
use std::fmt;

/// Any error; `?` makes one of a room's own, of the system's, and of a sentence. For functions
/// whose callers tell it to the owner and do not choose by it.
pub type AnyError = Box<dyn Error + Send + Sync>;

/// What failed, and the cause.
#[derive(Debug)]
struct Failed(String, AnyError);

/// For `map_err`: says what failed, a colon and the error, which stays the cause.
pub fn failed<E: Into<AnyError>>(what: impl Into<String>) -> impl FnOnce(E) -> AnyError {
    move |cause| Box::new(Failed(what.into(), cause.into()))
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.0, self.1)
    }
}

impl Error for Failed {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.1)
    }
}
