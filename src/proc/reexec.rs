//! Runs this program again in its own place.

use std::ffi::OsString;
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
    let own_name = arguments.next().unwrap_or_else(|| OsString::from("server"));
    // By its name: that is what `ps` and `pgrep` know the process by.
    let error = match std::env::current_exe() {
        Ok(file) => Command::new(file).arg0(own_name).args(arguments).env(name, value).exec(),
        Err(error) => error,
    };
    log::warn!("the program could not set {name} for itself: {error}");
}
