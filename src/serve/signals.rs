//! The signals that end the server.
//!
//! They are blocked in every thread and read from a descriptor (signalfd(2)): with a
//! handler there is a moment, while it is being put in, in which a signal is lost. What
//! the server starts has them blocked too, until [`crate::inside`] lets them through.

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, poll};
use std::io;

/// Whether this process was started with the signal ignored (proc_pid_status(5)).
fn is_ignored(signal: Signal) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|digits| u64::from_str_radix(digits.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (signal as i32 - 1) & 1 == 1)
}

/// Signals that have come and were not looked at.
#[derive(Debug)]
pub(super) struct Signals(SignalFd);

impl Signals {
    /// Keeps SIGTERM, SIGINT and SIGHUP from now on. To be called before there is a
    /// second thread: threads inherit what is blocked. `nohup` has SIGHUP ignored, and so it
    /// stays: one that is blocked would be kept nevertheless.
    ///
    /// # Errors
    /// When the process has no descriptor left.
    pub(super) fn keep() -> io::Result<Self> {
        let mut ours: SigSet = [Signal::SIGTERM, Signal::SIGINT].into_iter().collect();
        if !is_ignored(Signal::SIGHUP) {
            ours.add(Signal::SIGHUP);
        }
        ours.thread_block()?;
        Ok(Self(SignalFd::with_flags(&ours, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?))
    }

    /// The next one that has come already.
    ///
    /// # Errors
    /// When the system does not say.
    pub(super) fn pending(&self) -> io::Result<Option<Signal>> {
        let Some(info) = self.0.read_signal()? else { return Ok(None) };
        let number = i32::try_from(info.ssi_signo).map_err(io::Error::other)?;
        Ok(Some(Signal::try_from(number)?))
    }

    /// The next one, whenever it comes.
    ///
    /// # Errors
    /// As [`Signals::pending`].
    pub(super) fn wait(&self) -> io::Result<Signal> {
        loop {
            if let Some(signal) = self.pending()? {
                return Ok(signal);
            }
            // Woken for nothing, it looks again.
            let _ = poll(&mut [PollFd::new(&self.0, PollFlags::IN)], None);
        }
    }
}
