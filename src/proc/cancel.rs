//! A change of mind that also wakes whoever waits.

use rustix::event::{EventfdFlags, eventfd};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A flag that is pulled once and stays pulled; copies share it. Its descriptor
/// becomes readable at that moment, so that nobody needs to look every so often.
#[derive(Debug, Clone)]
pub struct Cancel(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    pulled: AtomicBool,
    fd: OwnedFd,
}

impl Cancel {
    /// A flag that nobody has pulled.
    ///
    /// # Errors
    /// When the process has no descriptor left.
    pub fn new() -> io::Result<Self> {
        let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self(Arc::new(Inner { pulled: AtomicBool::new(false), fd })))
    }

    /// Pulls it. Doing so twice is the same as once.
    pub fn cancel(&self) {
        self.0.pulled.store(true, Ordering::SeqCst);
        // Fails only when the counter is full, and then the descriptor is readable already.
        let _ = rustix::io::write(&self.0.fd, &1_u64.to_ne_bytes());
    }

    /// Whether it was pulled.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.0.pulled.load(Ordering::SeqCst)
    }
}

impl AsFd for Cancel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.fd.as_fd()
    }
}
