//! A process that goes on by itself: held through a pidfd, our child or adopted.

use super::{Exit, table};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

/// A running process. Dropping it neither ends nor waits for the process.
///
/// It is held through a pidfd (pidfd_open(2)), so no signal ever reaches a
/// stranger who got the same pid later.
#[derive(Debug)]
pub struct Running {
    pid: u32,
    start_ticks: u64,
    pidfd: OwnedFd,
    child: Option<Child>,
}

impl Running {
    /// Takes a child that was just started.
    pub(super) fn of_child(mut child: Child) -> io::Result<Self> {
        let pid = child.id();
        // Nobody has waited for the child, so its pid and entry cannot be another's.
        let opened = open(pid).and_then(|pidfd| {
            let entry = table::entry(pid).ok_or_else(|| io::Error::other("/proc is not there"))?;
            Ok((pidfd, entry.start_ticks))
        });
        let (pidfd, start_ticks) = or_end(&mut child, opened)?;
        Ok(Self { pid, start_ticks, pidfd, child: Some(child) })
    }

    /// Finds a process again by its pid and start time; `None` when it has ended.
    pub fn adopt(pid: u32, start_ticks: u64) -> Option<Self> {
        let pidfd = open(pid).ok()?;
        // Asked after the pidfd is held: from here on the pid cannot name another process unseen.
        let entry = table::entry(pid)?;
        let same = entry.start_ticks == start_ticks && !entry.has_ended();
        same.then_some(Self { pid, start_ticks, pidfd, child: None })
    }

    /// Its pid.
    pub const fn pid(&self) -> u32 {
        self.pid
    }

    /// When it started: `/proc/<pid>/stat`, field 22.
    pub const fn start_ticks(&self) -> u64 {
        self.start_ticks
    }

    /// How it ended, or `None` while it runs. For an adopted process the answer is
    /// [`Exit::Unknown`]: only a parent is told, and we do not guess.
    pub fn try_wait(&mut self) -> Option<Exit> {
        match self.child.as_mut().map(Child::try_wait) {
            Some(Ok(status)) => status.map(exit_of),
            Some(Err(_)) => Some(Exit::Unknown),
            None => is_readable(self.pidfd.as_fd()).then_some(Exit::Unknown),
        }
    }

    /// Waits for its end, at most this long.
    pub fn wait(&mut self, at_most: Duration) -> Option<Exit> {
        let until = Instant::now() + at_most;
        loop {
            let (exit, left) = (self.try_wait(), until.saturating_duration_since(Instant::now()));
            if exit.is_some() || left.is_zero() {
                return exit;
            }
            let _ = wait_any(&[self.pidfd.as_fd()], left);
        }
    }

    /// Asks it to end (SIGTERM).
    pub fn terminate(&self) {
        let _ = pidfd_send_signal(&self.pidfd, Signal::TERM);
    }

    /// Ends it (SIGKILL).
    pub fn kill(&self) {
        let _ = pidfd_send_signal(&self.pidfd, Signal::KILL);
    }
}

impl AsFd for Running {
    /// The pidfd: readable once the process has ended.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

/// Waits until one of the descriptors is readable; `false` when none was in time.
///
/// # Errors
/// When the system cannot wait, for lack of memory for example.
pub fn wait_any(fds: &[BorrowedFd<'_>], at_most: Duration) -> io::Result<bool> {
    let polled = fds.iter().map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN));
    // What the kernel has no number for is for ever.
    let at_most = Timespec::try_from(at_most).ok();
    match poll(&mut polled.collect::<Vec<_>>(), at_most.as_ref()) {
        Ok(ready) => Ok(ready > 0),
        Err(rustix::io::Errno::INTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Ends a child that cannot be watched.
pub(super) fn or_end<T>(child: &mut Child, result: io::Result<T>) -> io::Result<T> {
    result.inspect_err(|_| {
        let _ = child.kill();
        let _ = child.wait();
    })
}

pub(super) fn exit_of(status: ExitStatus) -> Exit {
    match (status.code(), status.signal()) {
        (Some(code), _) => Exit::Code(code),
        (None, Some(signal)) => Exit::Signal(signal),
        (None, None) => Exit::Unknown,
    }
}

pub(super) fn open(pid: u32) -> io::Result<OwnedFd> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or_else(|| io::Error::other("not a process id"))?;
    Ok(pidfd_open(pid, PidfdFlags::empty())?)
}

pub(super) fn is_readable(fd: BorrowedFd<'_>) -> bool {
    wait_any(&[fd], Duration::ZERO).unwrap_or(false)
}
