//! The command line that an operator can paste, into a shell in any directory.

use crate::config::PROGRAM;
use crate::data_dir::user;
use std::env;
use std::io::{IsTerminal as _, stderr};
use std::path::Path;

/// Bytes that a shell takes as they are.
const PLAIN: &[u8] = b"-_./:@%+,=";

/// The line that runs this program with other arguments on the same data.
///
/// The reader of a terminal is the server's user; the reader of a service's log must become it
/// first.
#[must_use]
pub fn of(data: &Path, arguments: &str) -> String {
    let program = env::current_exe().unwrap_or_else(|_| "server".into());
    if program == Path::new(PROGRAM) {
        return format!("sudo better-paas {arguments}");
    }
    let us = rustix::process::geteuid();
    let become_it = (!us.is_root() && !stderr().is_terminal()).then(|| us.as_raw());
    written(&program, data, become_it, arguments)
}

/// The words that run the rest of a line as another user: `sudo` takes a number behind a `#`.
pub(super) fn as_user(number: u32) -> String {
    let name = user::name(number);
    let mark = if name == number.to_string() { "#" } else { "" };
    format!("sudo -u {}", quoted(&format!("{mark}{name}")))
}

fn written(program: &Path, data: &Path, user: Option<u32>, arguments: &str) -> String {
    let shown = |path: &Path| quoted(&path.to_string_lossy());
    // sudo clears the environment, so it is set behind it.
    let as_user = user.map_or_else(String::new, |number| format!("{} env ", as_user(number)));
    format!("{as_user}DATA_DIR={} {} {arguments}", shown(data), shown(program))
}

/// A word as a shell reads it back.
pub(super) fn quoted(word: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || PLAIN.contains(&b);
    if !word.is_empty() && word.bytes().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_runs_from_anywhere_as_the_right_user() {
        let own = Path::new("/opt/better-paas/server");
        assert_eq!(
            written(own, Path::new("/opt/better-paas/data"), None, "token"),
            "DATA_DIR=/opt/better-paas/data /opt/better-paas/server token"
        );
        assert_eq!(
            written(own, Path::new("/srv/it's data"), Some(4_000_000_000), "lockouts"),
            "sudo -u '#4000000000' env DATA_DIR='/srv/it'\\''s data' /opt/better-paas/server lockouts"
        );
        assert_eq!(as_user(0), "sudo -u root");
    }
}
