//! Closes what the program that started us has left open.
//!
//! A parent that opens files carelessly leaves them open in the server. Every
//! file of our own is closed at exec; those are not, and an app, which lives
//! for weeks, could use them and would keep them open.

use std::fs;

/// Closes every descriptor above 2. Only at the very start, before anything is opened and any
/// thread begins: then all of them are somebody else's.
pub fn close_inherited() {
    let entries = fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    let open: Vec<i32> =
        entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    // That of the directory itself is among them, and closed by now.
    for fd in open.into_iter().filter(|fd| *fd > 2) {
        let _ = nix::unistd::close(fd);
    }
}
