//! Moves bytes between us and a running child until it ends or must.

use super::running::{exit_of, is_readable, open, or_end, wait_any};
use super::{Cancel, Exit};
use rustix::io::ioctl_fionbio;
use rustix::process::{Pid, Signal, kill_process_group};
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::process::Child;
use std::time::{Duration, Instant};

/// How long output is read after the child has ended: its own last words are in
/// the pipe already, what comes later is from processes it left behind.
const DRAIN: Duration = Duration::from_secs(1);

/// How long a killed child may take to go; one that hangs in the kernel is left behind.
const KILLED: Duration = Duration::from_secs(5);

/// Takes a piece of output of stream 0 or 1; `false` when it was one byte too many.
pub(super) type Sink<'a> = dyn FnMut(usize, &[u8]) -> bool + 'a;

/// A child under watch.
pub(super) struct Watch {
    child: Child,
    pidfd: OwnedFd,
    pipes: [Option<io::PipeReader>; 2],
    until: Instant,
    /// Why it was killed, once it was.
    killed: Option<Exit>,
    ended: bool,
}

impl Watch {
    pub(super) fn new(
        mut child: Child,
        pipes: [Option<io::PipeReader>; 2],
        until: Instant,
    ) -> io::Result<Self> {
        let prepared = open(child.id()).and_then(|pidfd| {
            pipes.iter().flatten().try_for_each(|pipe| ioctl_fionbio(pipe, true))?;
            Ok(pidfd)
        });
        let pidfd = or_end(&mut child, prepared)?;
        Ok(Self { child, pidfd, pipes, until, killed: None, ended: false })
    }

    /// Watches until the child has ended and its output too.
    pub(super) fn run(mut self, cancel: Option<&Cancel>, sink: &mut Sink<'_>) -> io::Result<Exit> {
        let result = self.watch(cancel, sink);
        // The group first, then the wait: until then the pid, which is the group's
        // name too, belongs to the child, so this cannot hit a stranger.
        self.kill_group();
        result?;
        if !self.ended {
            return Ok(self.killed.unwrap_or(Exit::Unknown));
        }
        let exit = exit_of(self.child.wait()?);
        Ok(self.killed.unwrap_or(exit))
    }

    fn watch(&mut self, cancel: Option<&Cancel>, sink: &mut Sink<'_>) -> io::Result<()> {
        while !self.ended || self.pipes.iter().any(Option::is_some) {
            if Instant::now() >= self.until {
                if self.ended || self.killed.is_some() {
                    break;
                }
                self.kill(Exit::TimedOut);
            } else if self.is_free() && cancel.is_some_and(Cancel::is_cancelled) {
                self.kill(Exit::Cancelled);
            }
            self.wait(cancel)?;
            if !self.ended && is_readable(self.pidfd.as_fd()) {
                self.ended = true;
                self.kill_group();
                self.until = Instant::now() + DRAIN;
            }
            for stream in 0..self.pipes.len() {
                if !self.read(stream, sink)? && self.is_free() {
                    self.kill(Exit::OutputCapped);
                }
            }
        }
        Ok(())
    }

    /// It has neither ended nor been killed.
    const fn is_free(&self) -> bool {
        !self.ended && self.killed.is_none()
    }

    /// Waits until anything has happened. What it was is seen by trying.
    fn wait(&self, cancel: Option<&Cancel>) -> io::Result<()> {
        let mut fds: Vec<_> = self.pipes.iter().flatten().map(AsFd::as_fd).collect();
        if !self.ended {
            fds.push(self.pidfd.as_fd());
        }
        fds.extend(cancel.filter(|_| self.is_free()).map(AsFd::as_fd));
        wait_any(&fds, self.until.saturating_duration_since(Instant::now())).map(drop)
    }

    /// Reads one piece; `false` when the sink wants no more.
    fn read(&mut self, stream: usize, sink: &mut Sink<'_>) -> io::Result<bool> {
        let Some(pipe) = self.pipes[stream].as_mut() else { return Ok(true) };
        let mut buffer = [0; 16 * 1024];
        match pipe.read(&mut buffer) {
            Ok(0) => self.pipes[stream] = None,
            // What a killed child still writes is read, so that it can go, and dropped.
            Ok(n) if self.killed.is_none() => return Ok(sink(stream, &buffer[..n])),
            Ok(_) => {}
            Err(error) if is_passing(&error) => {}
            Err(error) => return Err(error),
        }
        Ok(true)
    }

    fn kill(&mut self, why: Exit) {
        self.killed = Some(why);
        self.kill_group();
        self.until = Instant::now() + KILLED;
    }

    fn kill_group(&self) {
        if let Some(group) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

/// Whether a read or a write may succeed the next time.
pub fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}
