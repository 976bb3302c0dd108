//! Keeps from our children what we were given by the program that started us.
//!
//! A parent that opens files carelessly leaves them open in the server. Every
//! file of our own is closed at exec; those are not, and an app, which lives
//! for weeks, could use them and would keep them open.

use super::find;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Closes every descriptor above 2 and becomes the command. In bash, since a
/// POSIX shell knows descriptors of one digit only.
const CLOSE: &str = r#"
for fd in /proc/self/fd/*; do
    fd=${fd##*/}
    if [ "$fd" -gt 2 ]; then exec {fd}>&-; fi
done
exec env -u SHLVL -u PWD "$@"
"#;

/// `O_CLOEXEC` as `/proc/self/fdinfo` shows it (Linux, all architectures we build for).
const CLOSE_ON_EXEC: u32 = 0o2_000_000;

/// The words to put in front of a command: none when there is nothing to close.
pub(super) fn closer() -> &'static [PathBuf] {
    static CLOSER: OnceLock<Vec<PathBuf>> = OnceLock::new();
    CLOSER.get_or_init(|| {
        let open = inherited(Path::new("/proc/self/fdinfo"));
        if open.is_empty() {
            return Vec::new();
        }
        let Some(bash) = find("bash") else {
            log::warn!(
                "the server was started with open files {open:?}, which apps will inherit; \
                 install bash, which closes them, or start the server without them"
            );
            return Vec::new();
        };
        vec![bash, "-c".into(), CLOSE.into(), "bash".into()]
    })
}

/// Our descriptors above 2 that stay open at exec.
fn inherited(fdinfo: &Path) -> Vec<u32> {
    let Ok(dir) = fs::read_dir(fdinfo) else { return Vec::new() };
    let number = |entry: fs::DirEntry| entry.file_name().to_str()?.parse::<u32>().ok();
    let stays_open = |fd: &u32| {
        let text = fs::read_to_string(fdinfo.join(fd.to_string())).unwrap_or_default();
        let flags = text.lines().find_map(|line| line.strip_prefix("flags:"));
        let flags = flags.and_then(|f| u32::from_str_radix(f.trim(), 8).ok());
        flags.is_some_and(|flags| flags & CLOSE_ON_EXEC == 0)
    };
    dir.filter_map(Result::ok).filter_map(number).filter(|fd| *fd > 2).filter(stays_open).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proc::Exec;
    use std::process::Command;

    #[test]
    fn only_what_stays_open_at_exec_counts() {
        let dir = tempfile::tempdir().unwrap();
        let files =
            [("1", "01"), ("3", "02000000"), ("4", "02100002"), ("5", "0100001"), ("x", "0")];
        for (fd, flags) in files {
            fs::write(dir.path().join(fd), format!("pos:\t0\nflags:\t{flags}\n")).unwrap();
        }
        assert_eq!(inherited(dir.path()), [5]);
    }

    #[test]
    fn a_child_has_no_files_open_but_its_three() {
        let output = Exec::new("ls").arg("/proc/self/fd").run().unwrap();
        // The fourth is the directory that `ls` itself reads.
        assert_eq!(String::from_utf8_lossy(&output.stdout), "0\n1\n2\n3\n");
    }

    #[test]
    fn the_closer_closes_high_descriptors_and_keeps_arguments() {
        let script = format!("exec 7</dev/null 250</dev/null; exec bash -c '{CLOSE}' bash \"$@\"");
        let inner = ["sh", "-c", "ls /proc/self/fd; echo \"$1\"", "sh", "a  b"];
        let output =
            Command::new("bash").args(["-c", &script, "bash"]).args(inner).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "0\n1\n2\n3\na  b\n");
    }
}
