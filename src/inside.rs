//! The first program inside a sandbox that sees anything of the owner's: a command of this binary.
//!
//! It begins when every privilege is gone, reads from standard input what is to be run
//! ([`Inside`]), sets the limits, fences the network ([`fence`]), and becomes the command. The
//! first process of an app's sandbox stays ([`init`]): it passes signals on, takes notice of
//! ends, and writes the log.
//!
//! What stands in arguments can be read by everybody, and what stands in the environment acts
//! on every program on the way, as `LD_PRELOAD` does on those that are still root. So all of it
//! comes over standard input. Input that ends too early is from a server that was killed;
//! nothing runs with half of its environment. A command that gets an input of its own has both
//! as open files, in one message on standard input.

mod fence;
mod init;
pub mod probe;

use crate::proc::{Bare, descriptors};
use nix::sys::signal::SigSet;
use rustix::fs::ftruncate;
use rustix::io::Errno;
use rustix::process::{
    DumpableBehavior, Resource, Rlimit, ioctl_tiocsctty, set_dumpable_behavior, setrlimit, setsid,
};
use rustix::termios::isatty;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::error::Error;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::process::ExitCode;

/// The word after the program's name that makes it this.
pub const COMMAND: &str = "inside-sandbox";

/// The word that makes it become the command that follows, with no signal blocked.
const UNBLOCKED: &str = "exec-unblocked";

/// Where this program is inside.
pub const PLACE: &str = "/init";

/// The exit code when the command could not be started.
const NOT_STARTED: u8 = 125;

/// Bytes of a server's message: far more than all that an app may be given.
const LONGEST_MESSAGE: u64 = 16 << 20;

/// What is to be run, and how.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Inside<'a> {
    /// The command, an argument list.
    pub command: Vec<Cow<'a, str>>,
    /// Where it starts.
    pub dir: Cow<'a, str>,
    /// Its environment; of two values for one name the later one counts.
    pub env: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    /// Open files that each process may have (setrlimit(2)).
    pub open_files: Option<u64>,
    /// Bytes that it may write into one file.
    pub file_size: Option<u64>,
    /// Bytes of memory that it may write to; what it reserves alone does not count.
    pub data: Option<u64>,
    /// Processes and threads of its user.
    pub processes: Option<u64>,
    /// The one TCP port that it may listen on besides those that the kernel chooses.
    pub port: Option<u16>,
    /// Bytes of each of the two files of its log, which are standard output and standard error
    /// then: it is an app. Otherwise this process becomes the command.
    pub log: Option<u64>,
    /// What each line in that log begins with: the name of a process, where it has several.
    pub label: Cow<'a, str>,
}

impl Inside<'_> {
    fn set_limits(&self) -> io::Result<()> {
        for (resource, value) in [
            (Resource::Nofile, self.open_files),
            (Resource::Fsize, self.file_size),
            (Resource::Data, self.data),
            (Resource::Nproc, self.processes),
        ] {
            if value.is_some() {
                // Never more than there is already.
                let most = rustix::process::getrlimit(resource).maximum;
                let value = value.map(|value| most.map_or(value, |most| most.min(value)));
                setrlimit(resource, Rlimit { current: value, maximum: value })?;
            }
        }
        Ok(())
    }
}

/// Runs what these words after the program's name ask for, if that is for a sandbox.
pub fn run_if_asked(mut words: impl Iterator<Item = OsString>) -> Option<ExitCode> {
    match words.next()?.to_str()? {
        COMMAND => Some(exit_code(begin())),
        probe::COMMAND => {
            let words: Vec<_> = words.map(|word| word.to_string_lossy().into_owned()).collect();
            Some(exit_code(probe::run(&words).map(|()| 0).map_err(Into::into)))
        }
        UNBLOCKED => Some(exit_code(become_unblocked(words.collect()))),
        _ => None,
    }
}

fn exit_code(result: Result<u8, Box<dyn Error>>) -> ExitCode {
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            let _ = writeln!(io::stderr(), "{error}");
            ExitCode::from(NOT_STARTED)
        }
    }
}

fn become_unblocked(words: Vec<OsString>) -> Result<u8, Box<dyn Error>> {
    let (program, words) = words.split_first().ok_or("there is no command")?;
    SigSet::empty().thread_set_mask()?;
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    let error = Bare::here(program, words.iter()).exec();
    Err(format!("{} could not be run: {error}", program.display()).into())
}

/// The server's message, and an input for the command when that has one.
fn message() -> io::Result<(File, Option<OwnedFd>)> {
    match descriptors::receive(io::stdin(), &mut [0]) {
        Ok((_, files)) => {
            let missing = |_| io::Error::other("the server's message holds no two files");
            let [file, stdin] = <[OwnedFd; 2]>::try_from(files).map_err(missing)?;
            Ok((file.into(), Some(stdin)))
        }
        Err(error) if error.raw_os_error() == Some(Errno::NOTSOCK.raw_os_error()) => {
            Ok((io::stdin().as_fd().try_clone_to_owned()?.into(), None))
        }
        Err(error) => Err(error),
    }
}

/// Runs what standard input says.
fn begin() -> Result<u8, Box<dyn Error>> {
    // Nobody looks into this process, not even one of the same user: it holds the files of
    // the log. The command is not bound by that (prctl(2): exec ends it).
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    let (file, stdin) = message()?;
    let inside: Inside<'_> = {
        let message = io::Read::take(&file, LONGEST_MESSAGE);
        serde_json::from_reader(io::BufReader::new(message))
            .map_err(|error| format!("what is to be run did not come whole ({error})"))?
    };
    // Whoever still holds it finds nothing in it: the outer program does for as long as we run.
    let _ = ftruncate(&file, 0);
    inside.set_limits()?;
    fence::fence(inside.port)?;
    let words = [UNBLOCKED].into_iter().chain(inside.command.iter().map(AsRef::as_ref));
    let mut command = Bare::new(PLACE, words, &inside.dir);
    for (name, value) in &inside.env {
        command.env(name, value);
    }
    if let Some(stdin) = stdin {
        if isatty(&stdin) {
            // One that was made for this command: in a session of its own it has the keys that
            // end programs, and hears of the end.
            setsid()?;
            ioctl_tiocsctty(&stdin)?;
        }
        command.stdin(stdin);
    }
    match inside.log {
        Some(half) => Ok(init::run(command, half, &inside.label)?),
        None => Err(command.exec().into()),
    }
}
