//! A command as the first program inside a sandbox runs it, where there is nothing to watch over.

use std::ffi::OsStr;
use std::io::{self, PipeWriter};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

/// A command with exactly this environment, looked for in the `PATH` in there, and without
/// input but what it is given. What signals are blocked stays so: the standard library does not see to that.
pub struct Bare(Command);

impl Bare {
    /// An argument list that starts in a directory.
    pub fn new<S: AsRef<OsStr>>(program: S, arguments: impl Iterator<Item = S>, dir: &str) -> Self {
        let mut command = Command::new(program);
        command.args(arguments).env_clear().current_dir(dir).stdin(Stdio::null());
        Self(command)
    }

    /// The same that keeps the environment, the directory and the streams of this process.
    pub fn here<S: AsRef<OsStr>>(program: S, arguments: impl Iterator<Item = S>) -> Self {
        let mut command = Command::new(program);
        command.args(arguments);
        Self(command)
    }

    /// Gives it an open file as standard input.
    pub fn stdin(&mut self, stdin: OwnedFd) {
        self.0.stdin(stdin);
    }

    /// Sets a variable; a later one of the same name counts.
    pub fn env(&mut self, name: &str, value: &str) {
        self.0.env(name, value);
    }

    /// Becomes the command; comes back only with the error why not.
    #[must_use]
    pub fn exec(mut self) -> io::Error {
        self.0.exec()
    }

    /// Starts it with both streams going into a pipe, and answers its pid.
    ///
    /// # Errors
    /// When it could not be started.
    pub fn start(mut self, output: PipeWriter) -> io::Result<u32> {
        self.0.stderr(output.try_clone()?).stdout(output);
        Ok(self.0.spawn()?.id())
    }
}
