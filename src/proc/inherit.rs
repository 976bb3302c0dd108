//! Closes what the program that started us has left open.
//!
//! A parent that opens files carelessly leaves them open in the server. Every
//! file of our own is closed at exec; those are not, and an app, which lives
//! for weeks, could use them and would keep them open.

use std::fs;
use std::path::Path;

/// `O_CLOEXEC` as `/proc/self/fdinfo` shows it (Linux, all architectures we build for).
const CLOSE_ON_EXEC: u32 = 0o2_000_000;

/// Closes every descriptor above 2 that our children would have too. None of our own is one.
pub fn close_inherited() {
    for fd in inherited(Path::new("/proc/self/fdinfo")) {
        let _ = nix::unistd::close(fd);
    }
}

/// Our descriptors above 2 that stay open at exec.
fn inherited(fdinfo: &Path) -> Vec<i32> {
    let Ok(dir) = fs::read_dir(fdinfo) else { return Vec::new() };
    let number = |entry: fs::DirEntry| entry.file_name().to_str()?.parse::<i32>().ok();
    let stays_open = |fd: &i32| {
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
        close_inherited();
        let output = Exec::new("ls").arg("/proc/self/fd").run().unwrap();
        // The fourth is the directory that `ls` itself reads.
        assert_eq!(String::from_utf8_lossy(&output.stdout), "0\n1\n2\n3\n");
    }
}
