//! A change of mind that also wakes the threads that wait.

use super::running::is_readable;
use crate::sync::EventFd;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

/// A flag that is pulled once and stays pulled; copies share it. Its descriptor
/// becomes readable at that moment, so that nobody needs to look every so often, and is
/// never cleared, so that everybody who waits for it hears it.
#[derive(Debug, Clone)]
pub struct Cancel(Arc<EventFd>);

impl Cancel {
    /// A flag that nobody has pulled.
    ///
    /// # Errors
    /// When the process has no descriptor left.
    pub fn new() -> io::Result<Self> {
        Ok(Self(Arc::new(EventFd::new()?)))
    }

    /// Pulls it. Doing so twice is the same as once.
    pub fn cancel(&self) {
        self.0.signal();
    }

    /// Whether it was pulled.
    pub fn is_cancelled(&self) -> bool {
        is_readable(self.as_fd())
    }
}

impl AsFd for Cancel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
