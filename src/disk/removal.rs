//! Removes trees that an app has filled, in memory that does not grow with them.

use super::{ENTER, enter, entries, or_by_other_hands};
use rustix::fs::{AtFlags, Mode, RenameFlags, fstat, open, renameat_with, unlinkat};
use rustix::io::Errno;
use std::ffi::{CStr, CString};
use std::fs::{self, Permissions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Directories that were moved up and whose names are kept to be removed next. The others
/// are found again at the top; each look at it costs the more the more there was in it.
const KEPT: usize = 1000;

/// Removes a directory with everything in it; one that is not there is fine.
///
/// It needs neither recursion nor more than a few descriptors and names, however deep and
/// wide the tree: each directory found is first moved up to the top. It gets through
/// directories that their owner has made unreadable.
///
/// # Errors
/// When something cannot be removed; what is left can be tried again.
pub fn remove_tree(path: &Path) -> io::Result<()> {
    remove_tree_while(path, &|| true)
}

/// [`remove_tree`], which may take minutes, as long as `go_on` says so.
///
/// # Errors
/// Also when it was interrupted.
pub fn remove_tree_while(path: &Path, go_on: &dyn Fn() -> bool) -> io::Result<()> {
    or_by_other_hands(remove_ours(path, go_on).map(drop), |range| range.remove(path, go_on))
}

/// Answers how many names were kept at most.
fn remove_ours(path: &Path, go_on: &dyn Fn() -> bool) -> io::Result<usize> {
    let top = match open(path, ENTER, Mode::empty()) {
        Ok(top) => top,
        Err(Errno::NOENT) => return Ok(0),
        Err(Errno::ACCESS) => {
            fs::set_permissions(path, Permissions::from_mode(0o700))?;
            open(path, ENTER, Mode::empty())?
        }
        Err(error) => return Err(error.into()),
    };
    let top_meta = fstat(&top)?;
    if top_meta.st_mode & 0o700 != 0o700 {
        rustix::fs::fchmod(&top, Mode::RWXU)?;
    }
    let mut removal = Removal { top, counter: 0, pending: Vec::new(), go_on };
    let mut most = 0;
    loop {
        let before = removal.counter;
        for name in entries(&removal.top)? {
            removal.pending.push(name?);
            while let Some(name) = removal.pending.pop() {
                removal.remove(&name)?;
                most = most.max(removal.pending.len());
            }
        }
        // Whether a look sees what comes while it lasts is not said (readdir(3)).
        if removal.counter == before {
            break;
        }
    }
    fs::remove_dir(path)?;
    Ok(most)
}

struct Removal<'a> {
    top: OwnedFd,
    /// Counts the directories that were moved up, for their names.
    counter: u64,
    pending: Vec<CString>,
    go_on: &'a dyn Fn() -> bool,
}

impl Removal<'_> {
    /// Removes what has this name at the top; the directories in it are moved there first.
    fn remove(&mut self, name: &CStr) -> io::Result<()> {
        if !(self.go_on)() {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let Some(dir) = unlink_or_enter(&self.top, name)? else { return Ok(()) };
        for child in entries(&dir)? {
            if !(self.go_on)() {
                return Err(io::ErrorKind::Interrupted.into());
            }
            let child = child?;
            // Entered, since a directory can only be moved by who may write to it.
            if unlink_or_enter(&dir, &child)?.is_some() {
                let new = self.move_up(&dir, &child)?;
                if self.pending.len() < KEPT {
                    self.pending.push(new);
                }
            }
        }
        Ok(unlinkat(&self.top, name, AtFlags::REMOVEDIR)?)
    }

    fn move_up(&mut self, from: &OwnedFd, name: &CStr) -> io::Result<CString> {
        loop {
            self.counter += 1;
            let new = format!(".removed-{}", self.counter);
            let new = CString::new(new).map_err(io::Error::other)?;
            match renameat_with(from, name, &self.top, &new, RenameFlags::NOREPLACE) {
                Ok(()) => return Ok(new),
                Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Removes a file, or enters a directory.
fn unlink_or_enter(parent: &OwnedFd, name: &CStr) -> io::Result<Option<OwnedFd>> {
    let refused = match unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(None),
        Err(refused @ (Errno::ISDIR | Errno::PERM)) => refused,
        Err(error) => return Err(error.into()),
    };
    match enter(parent, name) {
        // EPERM may also be another user's file in a sticky directory (unlink(2)).
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => Err(refused.into()),
        entered => entered.map(Some),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::openat;
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
        fs::write(tree.join(".removed-1"), "in the way").unwrap();
        symlink(&kept, tree.join("a/link")).unwrap();
        symlink(&kept, tree.join("link")).unwrap();
        for sealed in ["a/b/c", "a/b", "a"] {
            fs::set_permissions(tree.join(sealed), Permissions::from_mode(0o000)).unwrap();
        }
        fs::set_permissions(&tree, Permissions::from_mode(0o500)).unwrap();
        remove_tree(&tree).unwrap();
        assert!(!tree.exists() && kept.join("file").exists());
        remove_tree(&tree).unwrap();
        let link = dir.path().join("link");
        symlink(&kept, &link).unwrap();
        assert!(remove_tree(&link).is_err());
        assert!(kept.join("file").exists());
    }

    #[test]
    fn a_tree_too_deep_for_a_path_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tree");
        fs::create_dir(&tree).unwrap();
        let mut at = open(&tree, ENTER, Mode::empty()).unwrap();
        for _ in 0..3000 {
            rustix::fs::mkdirat(&at, "deeper", Mode::RWXU).unwrap();
            at = openat(&at, "deeper", ENTER, Mode::empty()).unwrap();
        }
        drop(at);
        remove_tree(&tree).unwrap();
        assert!(!tree.exists());
    }

    #[test]
    fn a_wide_tree_is_removed_with_a_bounded_number_of_names() {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tree");
        for number in 0..KEPT + 100 {
            fs::create_dir_all(tree.join(format!("wide/{number}"))).unwrap();
        }
        let most = remove_ours(&tree, &|| true).unwrap();
        assert!(!tree.exists() && (1..=KEPT).contains(&most), "{most}");
    }

    #[test]
    fn a_removal_is_given_up_within_one_directory() {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tree");
        fs::create_dir_all(tree.join("a")).unwrap();
        (0..100).for_each(|n| drop(fs::File::create(tree.join(format!("a/{n}"))).unwrap()));
        let asked = std::cell::Cell::new(0);
        let a_moment = || asked.replace(asked.get() + 1) < 50;
        let ended = remove_tree_while(&tree, &a_moment).unwrap_err();
        assert_eq!(ended.kind(), io::ErrorKind::Interrupted);
        assert!(fs::read_dir(tree.join("a")).unwrap().count() > 0);
    }
}
