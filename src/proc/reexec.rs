//! Runs this program again in its own place.

use std::ffi::OsStr;
use std::fs::metadata;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;

/// This program's file, whatever became of its name.
const ITSELF: &str = "/proc/self/exe";

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
    let mut command = Command::new(own_file());
    command.arg0(own_name.as_deref().unwrap_or(OsStr::new("server"))).args(arguments);
    command
}

/// The file that runs, by its name as long as that is still the same file: the name is
/// what `ps` and `pgrep` know the process by.
fn own_file() -> PathBuf {
    let identity = |path: PathBuf| metadata(&path).ok().map(|m| ((m.dev(), m.ino()), path));
    let named = std::env::current_exe().ok().and_then(identity);
    match (named, identity(ITSELF.into())) {
        (Some((named, path)), Some((running, _))) if named == running => path,
        _ => ITSELF.into(),
    }
}
