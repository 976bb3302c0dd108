//! Runs this program again in its own place.

use std::ffi::OsStr;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

/// Becomes this program once more, same process id and arguments, with a variable
/// of the environment set that is read only at a program's start. Does nothing when
/// it is set already. When that fails the program goes on as it is.
pub fn with_variable(name: &str, value: &str) {
    if std::env::var_os(name).is_some() {
        return;
    }
    let error = itself().env(name, value).exec();
    log::warn!("the program could not set {name} for itself: {error}");
}

/// Begins this program anew in its own place. Comes back only with the error why not.
#[must_use]
pub fn anew() -> io::Error {
    itself().exec()
}

fn itself() -> Command {
    let mut arguments = std::env::args_os();
    let own_name = arguments.next();
    let mut command = Command::new("/proc/self/exe");
    command.arg0(own_name.as_deref().unwrap_or(OsStr::new("server"))).args(arguments);
    command
}
