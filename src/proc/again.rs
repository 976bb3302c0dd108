//! Runs this program again in its own place, with one more variable.

use std::ffi::OsStr;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

/// Becomes this program once more, same process id and arguments, with a variable
/// of the environment set that is read only at a program's start. Does nothing when
/// it is set already. When that fails the program goes on as it is.
pub fn with_variable(name: &str, value: &str) {
    if std::env::var_os(name).is_some() {
        return;
    }
    let mut arguments = std::env::args_os();
    let own_name = arguments.next();
    let error = Command::new("/proc/self/exe")
        .arg0(own_name.as_deref().unwrap_or(OsStr::new("server")))
        .args(arguments)
        .env(name, value)
        .exec();
    log::warn!("the program could not set {name} for itself: {error}");
}
