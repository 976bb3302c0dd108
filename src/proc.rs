//! The only place that starts a process.
//!
//! Every program gets an argument list (never a shell string), an environment
//! that is empty but for what its caller gives, a process group of its own, an
//! absolute deadline and a cap on its output. At the deadline the whole group is
//! killed. One kind of process outlives us: an app, see [`Exec::spawn_detached`].

mod bare;
mod cancel;
pub mod descriptors;
mod inherit;
mod pump;
pub mod reexec;
mod running;
pub mod table;

pub use bare::Bare;
pub use cancel::Cancel;
pub use inherit::close_inherited;
pub use pump::is_passing;
pub use running::{Running, wait_any};

use crate::model::failed;
use rustix::fs::{MemfdFlags, memfd_create};
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::File;
use std::io::{self, PipeReader};
use std::mem::take;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use zeroize::Zeroizing;

/// Where programs are looked for. Not the server's own `PATH`: what that holds
/// depends on how the server was started, and a directory in it that another
/// user may write would choose our programs for us.
pub const SYSTEM_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// How long a program runs when its caller says nothing.
const DEFAULT_DEADLINE: Duration = Duration::from_secs(30);

/// Bytes of output that are kept, both streams together.
const OUTPUT_CAP: usize = 1024 * 1024;

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// It returned this code.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
    /// Killed at its deadline.
    TimedOut,
    /// Killed because it wrote more than its cap.
    OutputCapped,
    /// Killed because its caller cancelled it.
    Cancelled,
    /// It ended while nobody who could be told was its parent.
    Unknown,
}

impl Exit {
    /// It returned zero.
    pub const fn is_success(self) -> bool {
        matches!(self, Self::Code(0))
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
            Self::TimedOut => f.write_str("time limit"),
            Self::OutputCapped => f.write_str("output limit"),
            Self::Cancelled => f.write_str("cancelled"),
            Self::Unknown => f.write_str("unknown"),
        }
    }
}

/// Takes a piece of output; `false` when it wants no more.
pub type OnPiece<'a> = dyn FnMut(&[u8]) -> bool + 'a;

/// What a finished program left.
#[derive(Debug)]
pub struct Output {
    /// How it ended.
    pub exit: Exit,
    /// What it wrote to standard output, up to the cap.
    pub stdout: Vec<u8>,
    /// What it wrote to standard error, up to the cap.
    pub stderr: Vec<u8>,
}

/// Finds a program the way [`Exec`] does; a name with a slash is taken as it is.
pub fn find(program: &str) -> Option<PathBuf> {
    let executable = |path: &Path| {
        path.is_file() && rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok()
    };
    if program.contains('/') {
        return Some(PathBuf::from(program)).filter(|p| executable(p));
    }
    SYSTEM_PATH.split(':').map(|dir| Path::new(dir).join(program)).find(|p| executable(p))
}

/// A program about to be run. It has no `Debug`: its environment and input may be secret.
#[must_use]
pub struct Exec {
    program: String,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    stdin: Zeroizing<Vec<u8>>,
    stdin_file: Option<OwnedFd>,
    reading: Option<OwnedFd>,
    /// Where standard output and standard error go; what goes nowhere comes to us.
    outputs: [Option<OwnedFd>; 2],
    deadline: Duration,
    joined: bool,
}

impl Exec {
    /// A program by its name in [`SYSTEM_PATH`] or by its path, with no
    /// arguments, no input, and nothing but `PATH` and `LANG` in its environment.
    pub fn new(program: &str) -> Self {
        Self {
            program: program.to_owned(),
            args: Vec::new(),
            env: vec![("PATH".into(), SYSTEM_PATH.into()), ("LANG".into(), "C.UTF-8".into())],
            stdin: Zeroizing::new(Vec::new()),
            stdin_file: None,
            reading: None,
            outputs: [None, None],
            deadline: DEFAULT_DEADLINE,
            joined: false,
        }
    }

    /// Adds one argument.
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    pub fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.args.extend(args.into_iter().map(|a| a.as_ref().to_owned()));
        self
    }

    /// Sets one environment variable.
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.env.push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Gives it these bytes on its standard input, then the end. They are wiped from the memory
    /// of this process; the kernel keeps them until the program has closed its input or ended.
    pub fn stdin_bytes(mut self, bytes: Vec<u8>) -> Self {
        self.stdin = Zeroizing::new(bytes);
        self
    }

    /// Gives this as input to what it becomes. It comes beside the bytes of
    /// [`Exec::stdin_bytes`], both as open files, in one message on its own standard input
    /// ([`descriptors`]). So no program on the way has it.
    pub fn stdin_file(mut self, file: OwnedFd) -> Self {
        self.stdin_file = Some(file);
        self
    }

    /// Gives it the first of these as [`Exec::stdin_file`] does, and the others as standard output
    /// and standard error.
    pub fn streams(mut self, [stdin, out, err]: [OwnedFd; 3]) -> Self {
        self.outputs = [Some(out), Some(err)];
        self.stdin_file(stdin)
    }

    /// Has it read an open file as its own standard input.
    pub fn reading(mut self, file: impl Into<OwnedFd>) -> Self {
        self.reading = Some(file.into());
        self
    }

    /// Has it write its standard output into an open file; its errors alone are collected.
    pub fn writing(mut self, file: impl Into<OwnedFd>) -> Self {
        self.outputs[0] = Some(file.into());
        self
    }

    /// How long it may run, from its start to the end of its output.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Standard error goes where standard output does, in the order of writing.
    pub fn joined(mut self) -> Self {
        self.joined = true;
        self
    }

    /// Runs it to its end and collects what it wrote.
    ///
    /// # Errors
    /// When it could not be started; [`io::ErrorKind::NotFound`] when it is not installed. How it
    /// ended is in [`Output::exit`].
    pub fn run(self) -> io::Result<Output> {
        self.collect(None, None)
    }

    /// [`Exec::run`], killed when `cancel` is pulled.
    ///
    /// # Errors
    /// As [`Exec::run`].
    pub fn run_until(self, cancel: &Cancel) -> io::Result<Output> {
        self.collect(Some(cancel), None)
    }

    /// Runs it to its end; standard output goes to `on_piece` as it comes, of any
    /// length, and is not kept. Once that says `false` the program is killed and the
    /// exit is [`Exit::OutputCapped`]. The cap on output holds for standard error alone.
    ///
    /// # Errors
    /// As [`Exec::run`].
    pub fn pieces(self, on_piece: &mut OnPiece<'_>, cancel: &Cancel) -> io::Result<Output> {
        self.collect(Some(cancel), Some(on_piece))
    }

    fn collect(
        mut self,
        cancel: Option<&Cancel>,
        mut on_piece: Option<&mut OnPiece<'_>>,
    ) -> io::Result<Output> {
        let mut collected = [Vec::new(), Vec::new()];
        let mut left = OUTPUT_CAP;
        let exit = self.watched(cancel, &mut |stream, piece| {
            if stream == 0
                && let Some(on_piece) = &mut on_piece
            {
                return on_piece(piece);
            }
            let taken = piece.len().min(left);
            collected[stream].extend_from_slice(&piece[..taken]);
            left -= taken;
            taken == piece.len()
        })?;
        let [stdout, stderr] = collected;
        Ok(Output { exit, stdout, stderr })
    }

    /// Starts it in a session of its own with these files as standard output and standard
    /// error, and lets go: it goes on when this process ends, however that happens.
    ///
    /// # Errors
    /// As [`Exec::run`].
    pub fn spawn_detached(self, out: &File, err: &File) -> io::Result<Running> {
        let failed = |error| self.not_run(error);
        // `setsid` becomes the program itself: same pid, since it is not the leader of
        // a group when it starts. Without a session of its own, the terminal from which
        // the server was started would end the app with it.
        let mut command = self.command(Some("setsid"))?;
        command.stdout(out.try_clone().map_err(failed)?);
        command.stderr(err.try_clone().map_err(failed)?);
        let child = command.spawn().map_err(failed)?;
        Running::of_child(child).map_err(failed)
    }

    /// The command with its input. `through` is a program that replaces itself by it.
    fn command(&self, through: Option<&str>) -> io::Result<Command> {
        let path = |name: &str| {
            let why = || format!("the program {name} is not installed");
            find(name).ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, why()))
        };
        let program = path(&self.program)?;
        let mut command = Command::new(through.map_or(Ok(program.clone()), path)?);
        command.args(through.map(|_| program)).args(&self.args).env_clear().current_dir("/");
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command.stdin(self.input().map_err(|error| self.not_run(error))?);
        Ok(command)
    }

    fn not_run(&self, error: io::Error) -> io::Error {
        io::Error::new(error.kind(), failed(format!("could not run {}", self.program))(error))
    }

    /// Its input as a file in memory, which nobody needs to feed as it is read.
    fn input(&self) -> io::Result<Stdio> {
        if let Some(file) = &self.reading {
            return Ok(file.try_clone()?.into());
        }
        if self.stdin.is_empty() && self.stdin_file.is_none() {
            return Ok(Stdio::null());
        }
        let made = memfd_create("input", MemfdFlags::CLOEXEC | MemfdFlags::NOEXEC_SEAL);
        // Before Linux 6.3 there was no such flag.
        let made = made.or_else(|_| memfd_create("input", MemfdFlags::CLOEXEC))?;
        let file = File::from(made);
        // It is read from where it stands, which this does not move.
        file.write_all_at(&self.stdin, 0)?;
        let Some(stdin) = &self.stdin_file else { return Ok(file.into()) };
        let (ours, theirs) = UnixStream::pair()?;
        descriptors::send(&ours, b"\n", &[file.as_fd(), stdin.as_fd()])?;
        Ok(OwnedFd::from(theirs).into())
    }

    /// Runs it to its end with both streams, 0 and 1, going to `sink`, unless it has its own.
    fn watched(&mut self, cancel: Option<&Cancel>, sink: &mut pump::Sink<'_>) -> io::Result<Exit> {
        let mut command = self.command(None)?;
        let pipes = self.outputs(&mut command).map_err(|error| self.not_run(error))?;
        let child = command.process_group(0).spawn().map_err(|error| self.not_run(error))?;
        // Our copies of the child's ends close here; otherwise its output would never end.
        drop((command, self.stdin_file.take(), self.reading.take(), take(&mut self.outputs)));
        let failed = |error| self.not_run(error);
        let watch = pump::Watch::new(child, pipes, Instant::now() + self.deadline);
        watch.and_then(|watch| watch.run(cancel, sink)).map_err(failed)
    }

    /// Sets where its output goes, and answers the pipes from which it comes.
    fn outputs(&self, command: &mut Command) -> io::Result<[Option<PipeReader>; 2]> {
        let mut pipes = [None, None];
        let mut ends = Vec::<OwnedFd>::new();
        for (given, pipe) in self.outputs.iter().zip(&mut pipes) {
            ends.push(match (given, ends.first()) {
                (Some(file), _) => file.try_clone()?,
                (None, Some(out)) if self.joined => out.try_clone()?,
                (None, _) => {
                    let (ours, theirs) = io::pipe()?;
                    *pipe = Some(ours);
                    theirs.into()
                }
            });
        }
        command.stderr(ends.remove(1)).stdout(ends.remove(0));
        Ok(pipes)
    }
}

#[cfg(test)]
mod tests;
