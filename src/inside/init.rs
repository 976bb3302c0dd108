//! The first process of an app's sandbox (pid 1 in there).
//!
//! When it ends the kernel ends everything inside. So it ends last: it asks all processes to
//! end when the server asks it, waits until the last of them has, and tells by its exit code
//! how the command ended. What they write comes to it over a pipe, and it alone writes the log,
//! also while no server runs. It never keeps the app waiting for the disk to have room: what
//! cannot be written is counted and left out.

use crate::journal::{Rotating, own_line};
use crate::proc::{Bare, wait_any};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::Pid;
use rustix::io::Errno;
use rustix::process::{WaitOptions, wait};
use std::fs::File;
use std::io::{self, PipeReader, Read as _};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

/// Bytes that are taken out of the pipe at once: as many as it holds.
const PIECE: usize = 64 * 1024;

/// Pieces that are written after the end: more than a pipe has room for.
const LAST_PIECES: usize = 16;

/// What the platform's own lines begin with, and no app's.
const OWN: &[u8] = b"[better-paas]";

/// How long the others have to end after the command has failed; without them it is as good
/// as crashed.
const LEFT_BEHIND: Duration = Duration::from_secs(10);

/// The process id of the first process in a namespace. Any other must not do what this one
/// does: it would ask all processes of the machine to end.
const INIT: u32 = 1;

/// What an exit code is that stands for a signal (POSIX, `sh`).
const SIGNALLED: i32 = 128;

/// Starts the command and looks after it until nothing inside is left. Answers the exit code.
pub(super) fn run(command: Bare, half: u64, label: &str) -> io::Result<u8> {
    if std::process::id() != INIT {
        return Err(io::Error::other("it is not the first process of a sandbox"));
    }
    let signals = Signals::keep()?;
    let files =
        [io::stdout().as_fd().try_clone_to_owned()?, io::stderr().as_fd().try_clone_to_owned()?];
    let to = Rotating::new(files.map(File::from), half)?;
    let mut log = Log { to, label, inside_line: false, held: Vec::new(), lost: 0 };
    let (output, input) = io::pipe()?;
    let command = match command.start(input) {
        Ok(pid) => pid,
        Err(error) => {
            log.note(&format!("The start command could not be run: {error}"));
            return Ok(super::NOT_STARTED);
        }
    };
    rustix::io::ioctl_fionbio(&output, true)?;
    let mut family = Family { command, how: None, last: 0, asked: false, kill_at: None };
    let mut output = Some(output);
    loop {
        if family.has_ended(&signals)? {
            // What is in the pipe; a process that is given up may go on writing.
            for _ in 0..LAST_PIECES {
                if !log.take(&mut output) {
                    break;
                }
            }
            log.finish();
            return Ok(family.code());
        }
        log.take(&mut output);
        family.wait(&signals, output.as_ref())?;
    }
}

/// Every process inside but this one.
struct Family {
    command: u32,
    /// The exit code of the command, once it has ended.
    how: Option<i32>,
    /// That of the one that ended last.
    last: i32,
    /// They were asked to end.
    asked: bool,
    /// When those are given up that do not.
    kill_at: Option<Instant>,
}

impl Family {
    /// Does what signals ask for and takes notice of ends; whether nobody is left, or no
    /// longer waited for.
    fn has_ended(&mut self, signals: &Signals) -> io::Result<bool> {
        if signals.asked_to_end()? {
            self.ask();
        }
        loop {
            match wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) => {
                    let signal = status.terminating_signal().unwrap_or(0);
                    self.last = status.exit_status().unwrap_or(SIGNALLED + signal);
                    if u32::try_from(pid.as_raw_pid()) == Ok(self.command) {
                        self.how = Some(self.last);
                        // Whom the server has asked it gives its time, and ends itself.
                        if self.last != 0 && !self.asked {
                            self.ask();
                            self.kill_at = Some(Instant::now() + LEFT_BEHIND);
                        }
                    }
                }
                Ok(None) => return Ok(self.kill_at.is_some_and(|at| Instant::now() >= at)),
                Err(Errno::CHILD) => return Ok(true),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Asks all to end: a shell that waits for the app takes the signal and passes it to nobody.
    fn ask(&mut self) {
        if !std::mem::replace(&mut self.asked, true) {
            // Every process that this one may signal but itself (kill(2)): all in here.
            let _ = kill(Pid::from_raw(-1), Signal::SIGTERM);
        }
    }

    /// How the command ended. One that has put itself into the background well has ended as the
    /// last of those that it left.
    fn code(&self) -> u8 {
        let code = self.how.filter(|code| *code != 0).unwrap_or(self.last);
        u8::try_from(code).unwrap_or(u8::MAX)
    }

    fn wait(&self, signals: &Signals, output: Option<&PipeReader>) -> io::Result<()> {
        let fds: Vec<_> = [signals.0.as_fd()].into_iter().chain(output.map(AsFd::as_fd)).collect();
        let left = self.kill_at.map(|at| at.saturating_duration_since(Instant::now()));
        wait_any(&fds, left.unwrap_or(Duration::MAX)).map(drop)
    }
}

/// The signals that concern this process, read from a descriptor.
struct Signals(SignalFd);

impl Signals {
    fn keep() -> io::Result<Self> {
        let ours: SigSet = [Signal::SIGTERM, Signal::SIGCHLD].into_iter().collect();
        ours.thread_block()?;
        Ok(Self(SignalFd::with_flags(&ours, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?))
    }

    /// Whether the server has asked. A process inside has a pid in here, and says nothing.
    fn asked_to_end(&self) -> io::Result<bool> {
        let mut asked = false;
        while let Some(info) = self.0.read_signal()? {
            // Nobody may forge the code of a usual signal to others (rt_sigqueueinfo(2)).
            let usual = info.ssi_code == 0 && info.ssi_pid == 0;
            asked |= usual && info.ssi_signo == Signal::SIGTERM as u32;
        }
        Ok(asked)
    }
}

/// The log, what is not in it yet, and lines that are not in it for good.
struct Log<'a> {
    to: Rotating,
    /// What each line begins with.
    label: &'a str,
    /// The end of the last line that was written is still to come.
    inside_line: bool,
    /// The beginning of a line. It waits for its end, so that nothing comes in between: half of
    /// a secret would not be recognised as one.
    held: Vec<u8>,
    lost: usize,
}

impl Log<'_> {
    /// Takes one piece out of the pipe; whether there may be more.
    fn take(&mut self, output: &mut Option<PipeReader>) -> bool {
        let Some(pipe) = output else { return false };
        let mut piece = [0; PIECE];
        match pipe.read(&mut piece) {
            // All have ended that could write to it, or have closed it.
            Ok(0) => *output = None,
            Ok(read) => {
                self.held.extend_from_slice(&piece[..read]);
                let whole = self.held.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
                let rest = self.held.split_off(whole);
                self.write_held();
                self.held = rest;
                if self.held.len() >= PIECE {
                    self.write_held();
                }
                return true;
            }
            Err(error) => return error.kind() == io::ErrorKind::Interrupted,
        }
        false
    }

    /// Ends the last line: what another process writes is none of it.
    fn finish(&mut self) {
        if !self.held.is_empty() {
            self.held.push(b'\n');
            self.write_held();
        }
    }

    fn write_held(&mut self) {
        let held = std::mem::take(&mut self.held);
        let piece = labelled(&held, self.label, self.inside_line);
        if piece.is_empty() {
            return;
        }
        self.inside_line = !held.ends_with(b"\n");
        if self.lost > 0 {
            self.note(&format!("{} lines are left out here: they could not be written", self.lost));
        }
        if self.lost > 0 || self.to.append(&piece).is_err() {
            self.lost += piece.iter().filter(|b| **b == b'\n').count().max(1);
        }
    }

    fn note(&mut self, line: &str) {
        if self.to.append_line(&own_line(&format!("{}{line}", self.label))).is_ok() {
            self.lost = 0;
        }
    }
}

/// The output with the label before each line, and without lines that look like the platform's
/// own: they get a space in front.
fn labelled(piece: &[u8], label: &str, inside_line: bool) -> Vec<u8> {
    let mut marked = Vec::with_capacity(piece.len());
    for (at, line) in piece.split_inclusive(|b| *b == b'\n').enumerate() {
        if !label.is_empty() && (at > 0 || !inside_line) {
            marked.extend_from_slice(label.as_bytes());
        } else if line.starts_with(OWN) {
            // Also within a line: another process may have written in between.
            marked.push(b' ');
        }
        marked.extend_from_slice(line);
    }
    marked
}

#[cfg(test)]
mod tests {
    use super::labelled;

    #[test]
    fn each_line_has_its_label_once_and_none_passes_for_one_of_ours() {
        let text = |piece: &str, label, inside_line| {
            String::from_utf8(labelled(piece.as_bytes(), label, inside_line)).unwrap()
        };
        assert_eq!(text("a\n\nb", "w.1 | ", false), "w.1 | a\nw.1 | \nw.1 | b");
        assert_eq!(text("b, on\nc\n", "w.1 | ", true), "b, on\nw.1 | c\n");
        assert_eq!(text("[better-paas] x\n", "w.1 | ", false), "w.1 | [better-paas] x\n");
        // Another process may have ended its line in between.
        assert_eq!(text("[better-paas] x\n", "w.1 | ", true), " [better-paas] x\n");
        assert_eq!(text("a\n[better-paas] x\n", "", false), "a\n [better-paas] x\n");
    }
}
