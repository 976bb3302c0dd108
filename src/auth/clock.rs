//! The clock of lockouts: it never jumps when the time is set.

#[cfg(test)]
use std::sync::{Arc, atomic::AtomicU64, atomic::Ordering};
use std::time::Instant;

/// Milliseconds since the clock was made.
pub(super) type Millis = u64;

#[derive(Debug)]
pub(super) enum Clock {
    Running(Instant),
    /// Stands still until a test moves it.
    #[cfg(test)]
    Set(Arc<AtomicU64>),
}

impl Clock {
    pub(super) fn running() -> Self {
        Self::Running(Instant::now())
    }

    pub(super) fn now(&self) -> Millis {
        match self {
            Self::Running(start) => {
                Millis::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX)
            }
            #[cfg(test)]
            Self::Set(now) => now.load(Ordering::Relaxed),
        }
    }
}
