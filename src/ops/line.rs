//! The command line that an operator can paste, from any directory.

use crate::data_dir::user;
use std::env;
use std::io::{IsTerminal as _, stderr};
use std::path::{Path, PathBuf};

/// What names the data directory.
const DATA_DIR: &str = "DATA_DIR";

/// Bytes that a shell takes as they are.
const PLAIN: &[u8] = b"-_./:@%+,=";

/// The line that runs this program with other arguments on the same data.
///
/// The reader of a terminal is the server's user; the reader of a service's log must become it
/// first.
#[must_use]
pub fn of(data: &Path, arguments: &str) -> String {
    let us = rustix::process::geteuid();
    let become_it = (!us.is_root() && !stderr().is_terminal()).then(|| us.as_raw());
    let program = env::current_exe().unwrap_or_else(|_| "server".into());
    let named = env::var_os(DATA_DIR).is_some_and(|dir| !dir.is_empty());
    let place =
        if named { DataPlace::Named(data) } else { DataPlace::Here(env::current_dir().ok()) };
    written(&program, &place, become_it, arguments)
}

/// The words that run the rest of a line as another user: `sudo` takes a number behind a `#`.
pub(super) fn as_user(number: u32) -> String {
    let name = user::name(number);
    let mark = if name == number.to_string() { "#" } else { "" };
    format!("sudo -u {}", quoted(&format!("{mark}{name}")))
}

/// How the data directory is found.
enum DataPlace<'a> {
    /// By `DATA_DIR`.
    Named(&'a Path),
    /// By the directory in which the server runs.
    Here(Option<PathBuf>),
}

fn written(program: &Path, place: &DataPlace<'_>, user: Option<u32>, arguments: &str) -> String {
    let shown = |path: &Path| quoted(&path.to_string_lossy());
    let as_user = user.map_or_else(String::new, |number| format!("{} ", as_user(number)));
    match place {
        DataPlace::Here(Some(dir)) => {
            let below = program.strip_prefix(dir).map(|rest| Path::new(".").join(rest));
            let program = shown(below.as_deref().unwrap_or(program));
            format!("cd {} && {as_user}{program} {arguments}", shown(dir))
        }
        DataPlace::Here(None) => format!("{as_user}{} {arguments}", shown(program)),
        DataPlace::Named(data) => {
            // sudo clears the environment, so it is set behind it.
            let set = if user.is_some() { "env " } else { "" };
            let (data, program) = (shown(data), shown(program));
            format!("{as_user}{set}{DATA_DIR}={data} {program} {arguments}")
        }
    }
}

/// A word as a shell reads it back.
fn quoted(word: &str) -> String {
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
        let here = || DataPlace::Here(Some("/opt/better-paas".into()));
        let own = Path::new("/opt/better-paas/server");
        let nobody = Some(4_000_000_000);
        assert_eq!(
            written(own, &here(), nobody, "token"),
            "cd /opt/better-paas && sudo -u '#4000000000' ./server token"
        );
        assert_eq!(
            written(Path::new("/usr/bin/server"), &here(), None, "token"),
            "cd /opt/better-paas && /usr/bin/server token"
        );
        let place = DataPlace::Named(Path::new("/srv/it's data"));
        assert_eq!(
            written(own, &place, nobody, "lockouts"),
            "sudo -u '#4000000000' env DATA_DIR='/srv/it'\\''s data' /opt/better-paas/server lockouts"
        );
        assert_eq!(as_user(0), "sudo -u root");
    }
}
