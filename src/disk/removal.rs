//! Removes trees that an app has filled: this program again, as a user who may, in memory that
//! does not grow with them.

use super::subuid::run_as_owner;
use super::tree::{ENTER, entries};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, fstat, openat, renameat, unlinkat};
use rustix::io::Errno;
use rustix::path::Arg;
use std::ffi::{CStr, CString, OsStr, OsString};
use std::fmt::Display;
use std::fs::{self, Permissions};
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::io::{self, Write as _};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// The word after the program's name that makes it this; the path follows.
const COMMAND: &str = "remove-tree";

/// A removal may take many minutes; it is done in parts of this length, so that it can
/// be given up between two of them. Each goes on where the one before was ended; on a busy
/// machine it takes a second until one begins.
const PART: Duration = Duration::from_secs(5);
const LONGEST_PART: Duration = Duration::from_secs(300);

/// Removes a directory with everything in it, or whatever has its name, as long as `go_on`
/// says so; what is not there is fine.
///
/// # Errors
/// When something cannot be removed, or it was interrupted; what is left can be tried again.
pub fn remove_tree(path: &Path, go_on: &dyn Fn() -> bool) -> io::Result<()> {
    let program = this_program()?;
    let mut part = PART;
    while go_on() {
        match run_as_owner(&[program.as_os_str(), OsStr::new(COMMAND), path.as_os_str()], part) {
            // A directory that once held millions of names takes long to be read, even empty.
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                part = (2 * part).min(LONGEST_PART);
            }
            other => return other.map(drop),
        }
    }
    Err(io::ErrorKind::Interrupted.into())
}

/// A name that nothing has yet; it begins with a dot, as no app's or deploy's does.
pub fn random_name() -> String {
    format!(".{:016x}", RandomState::new().build_hasher().finish())
}

/// This program by its path: its link below `/proc` leads into no other user namespace.
///
/// # Errors
/// When the system does not say.
pub fn this_program() -> io::Result<PathBuf> {
    // What has replaced it goes by its name, to which the kernel adds this (proc_pid_exe(5)).
    let program = std::env::current_exe()?;
    let replaced = program.to_str().and_then(|path| path.strip_suffix(" (deleted)"));
    let program = replaced.map_or_else(|| program.clone(), PathBuf::from);
    // The tests' program is in a directory beside the server.
    #[cfg(test)]
    let program = program.parent().unwrap().with_file_name("server");
    Ok(program)
}

/// Removes what these words after the program's name ask for, if they do.
pub fn run_if_asked(mut words: impl Iterator<Item = OsString>) -> Option<ExitCode> {
    let path = words.next().filter(|word| word == COMMAND).and_then(|_| words.next())?;
    Some(said(remove(Path::new(&path))))
}

/// How a command of ours ends that nobody but this program calls: with its error for who did.
pub fn said(done: Result<(), impl Display>) -> ExitCode {
    let Err(error) = done else { return ExitCode::SUCCESS };
    let _ = writeln!(io::stderr(), "{error}");
    ExitCode::FAILURE
}

/// It needs neither recursion nor more than a few descriptors and names, however deep and
/// wide the tree: each directory found is first moved up to the top. It gets through
/// directories that their owner has made unreadable.
fn remove(path: &Path) -> io::Result<()> {
    let Some(top) = unlink_or_enter(CWD, path)? else { return Ok(()) };
    // Whether a look sees what comes while it lasts is not said (readdir(3)).
    let mut look_again = true;
    while std::mem::take(&mut look_again) {
        for name in entries(&top)? {
            let mut next = Some(name?);
            // The one that was moved last at once: looking for it costs the more the more
            // there was at the top, for each step down a deep tree.
            while let Some(name) = next {
                next = remove_one(&top, &name)?;
                look_again |= next.is_some();
            }
        }
    }
    fs::remove_dir(path)
}

/// Removes what has this name at the top; the directories in it are moved there first.
/// Answers the new name of the last one.
fn remove_one(top: &OwnedFd, name: &CStr) -> io::Result<Option<CString>> {
    let Some(dir) = unlink_or_enter(top, name)? else { return Ok(None) };
    let mut last = None;
    for child in entries(&dir)? {
        let child = child?;
        // Entered, since a directory can only be moved by who may write to it.
        if unlink_or_enter(&dir, child.as_c_str())?.is_some() {
            let new = CString::new(random_name()).map_err(io::Error::other)?;
            renameat(&dir, &child, top, &new)?;
            last = Some(new);
        }
    }
    unlinkat(top, name, AtFlags::REMOVEDIR)?;
    Ok(last)
}

/// Removes a file, or enters a directory for good and makes sure that we may change it.
fn unlink_or_enter<P: Arg + Copy>(parent: impl AsFd, name: P) -> io::Result<Option<OwnedFd>> {
    let refused = match unlinkat(&parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(None),
        Err(refused @ (Errno::ISDIR | Errno::PERM)) => refused,
        Err(error) => return Err(error.into()),
    };
    let found = match openat(&parent, name, ENTER | OFlags::PATH, Mode::empty()) {
        // EPERM may also be another user's file in a sticky directory (unlink(2)).
        Err(Errno::NOTDIR) => return Err(refused.into()),
        found => found?,
    };
    if fstat(&found)?.st_mode & 0o700 != 0o700 {
        // Through /proc, since a directory that may not be read cannot be opened
        // for fchmod; the link leads to this very directory and no other.
        let itself = format!("/proc/self/fd/{}", found.as_raw_fd());
        fs::set_permissions(itself, Permissions::from_mode(0o700))?;
    }
    Ok(Some(openat(&parent, name, ENTER, Mode::empty())?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_tree_is_removed_whole_and_nothing_that_it_links_to() {
        let dir = tempfile::tempdir().unwrap();
        let kept = dir.path().join("kept");
        fs::create_dir(&kept).unwrap();
        fs::write(kept.join("file"), "x").unwrap();
        let tree = dir.path().join("tree");
        fs::create_dir_all(tree.join("a/b/c")).unwrap();
        fs::write(tree.join("a/b/c/file"), "x").unwrap();
        symlink(&kept, tree.join("a/link")).unwrap();
        symlink(&kept, tree.join("link")).unwrap();
        for sealed in ["a/b/c", "a/b", "a"] {
            fs::set_permissions(tree.join(sealed), Permissions::from_mode(0o000)).unwrap();
        }
        fs::set_permissions(&tree, Permissions::from_mode(0o500)).unwrap();
        remove_tree(&tree, &|| true).unwrap();
        assert!(!tree.exists() && kept.join("file").exists());
        remove_tree(&tree, &|| true).unwrap();
        let link = dir.path().join("link");
        symlink(&kept, &link).unwrap();
        remove_tree(&link, &|| true).unwrap();
        assert!(fs::symlink_metadata(&link).is_err() && kept.join("file").exists());
    }

    #[test]
    fn a_tree_too_deep_for_a_path_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tree");
        fs::create_dir(&tree).unwrap();
        let mut at = rustix::fs::open(&tree, ENTER, Mode::empty()).unwrap();
        for _ in 0..3000 {
            rustix::fs::mkdirat(&at, "deeper", Mode::RWXU).unwrap();
            at = openat(&at, "deeper", ENTER, Mode::empty()).unwrap();
        }
        drop(at);
        remove(&tree).unwrap();
        assert!(!tree.exists());
    }

    #[test]
    fn a_tree_that_is_wide_and_deep_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tree");
        for number in 0..1100 {
            fs::create_dir_all(tree.join(format!("wide/{number}/{number}"))).unwrap();
        }
        remove(&tree).unwrap();
        assert!(!tree.exists());
    }

    #[test]
    fn a_removal_is_given_up_between_its_parts() {
        let dir = tempfile::tempdir().unwrap();
        let ended = remove_tree(dir.path(), &|| false).unwrap_err();
        assert_eq!(ended.kind(), io::ErrorKind::Interrupted);
        assert!(dir.path().exists());
    }
}
