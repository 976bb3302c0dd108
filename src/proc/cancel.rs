//! A change of mind that also wakes the threads that wait.

use crate::sync::EventFd;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A flag that is pulled once and stays pulled; copies share it. Its descriptor
/// becomes readable at that moment, so that nobody needs to look every so often.
#[derive(Debug, Clone)]
pub struct Cancel(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    pulled: AtomicBool,
    /// Never cleared, so that everybody who waits for it hears it.
    wake_up: EventFd,
}

impl Cancel {
    /// A flag that nobody has pulled.
    ///
    /// # Errors
    /// When the process has no descriptor left.
    pub fn new() -> io::Result<Self> {
        let wake_up = EventFd::new()?;
        Ok(Self(Arc::new(Inner { pulled: AtomicBool::new(false), wake_up })))
    }

    /// Pulls it. Doing so twice is the same as once.
    pub fn cancel(&self) {
        self.0.pulled.store(true, Ordering::SeqCst);
        self.0.wake_up.signal();
    }

    /// Whether it was pulled.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.0.pulled.load(Ordering::SeqCst)
    }
}

impl AsFd for Cancel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.wake_up.as_fd()
    }
}
