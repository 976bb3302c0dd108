//! Directories that somebody else has filled: read, given away and removed
//! without ever following one of their links.

use super::disk::Space;
use super::identity::Range;
use rustix::fs::{
    AtFlags, Dir, FileType, Gid, Mode, OFlags, RenameFlags, ResolveFlags, Uid, chownat, fstat,
    open, openat, openat2, renameat_with, statat, statvfs, unlinkat,
};
use rustix::io::Errno;
use std::ffi::{CStr, CString, OsStr};
use std::fs::{self, File, Permissions};
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// A directory, entered for good: what its owner renames or links meanwhile
/// changes nothing about which one it is.
pub const ENTER: OFlags = OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// A release as it was checked out.
pub struct Tree {
    top: OwnedFd,
}

impl Tree {
    /// Opens the directory `below` a release, without following a link on the way.
    ///
    /// # Errors
    /// When it is not there or is not a directory.
    pub fn open(release: &Path, below: &str) -> io::Result<Self> {
        let top = open(release, ENTER, Mode::empty())?;
        if below.is_empty() {
            return Ok(Self { top });
        }
        let top = openat2(&top, below, ENTER, Mode::empty(), inside())?;
        Ok(Self { top })
    }

    /// Its top.
    #[must_use]
    pub const fn top(&self) -> &OwnedFd {
        &self.top
    }

    /// The text of a regular file, lossy, if it is there and no longer than `cap` bytes.
    #[must_use]
    pub fn read(&self, name: &str, cap: u64) -> Option<String> {
        self.read_path(name.as_bytes(), cap)
    }

    /// [`Tree::read`] of a path that somebody else has chosen, of any bytes.
    #[must_use]
    pub fn read_path(&self, path: &[u8], cap: u64) -> Option<String> {
        // NONBLOCK: opening a named pipe would wait for its other end.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = openat2(&self.top, path, flags, Mode::empty(), inside()).ok()?;
        let file = File::from(fd);
        let meta = file.metadata().ok()?;
        if !meta.is_file() || meta.len() > cap {
            return None;
        }
        let mut bytes = Vec::new();
        file.take(cap).read_to_end(&mut bytes).ok()?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Bytes of a regular file, if it is there.
    #[must_use]
    pub fn size(&self, name: &str) -> Option<u64> {
        let stat = statat(&self.top, name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
        let regular = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
        u64::try_from(stat.st_size).ok().filter(|_| regular)
    }

    /// Whether a regular file of this name is there.
    #[must_use]
    pub fn has_file(&self, name: &str) -> bool {
        self.size(name).is_some()
    }
}

/// No way out and no links: neither by `..` nor by a link planted in a repository.
pub fn inside() -> ResolveFlags {
    ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS
}

/// Removes a directory with everything in it; one that is not there is fine.
///
/// It needs neither recursion nor more than a few descriptors, however deep
/// the tree: each directory found is first moved up to the top. It gets through
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
    or_by_other_hands(remove_ours(path, go_on), |range| range.remove(path, go_on))
}

/// What an app owns cannot be changed by an ordinary user's server itself.
fn or_by_other_hands<T>(
    result: io::Result<T>,
    otherwise: impl FnOnce(Range) -> io::Result<T>,
) -> io::Result<T> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            Range::of_this_user().map_or(Err(error), otherwise)
        }
        other => other,
    }
}

fn remove_ours(path: &Path, go_on: &dyn Fn() -> bool) -> io::Result<()> {
    let top = match open(path, ENTER, Mode::empty()) {
        Ok(top) => top,
        Err(Errno::NOENT) => return Ok(()),
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
    let mut counter = 0_u64;
    let mut pending = names(&top)?;
    while let Some(name) = pending.pop() {
        let Some(dir) = unlink_or_enter(&top, &name)? else { continue };
        if !go_on() {
            return Err(io::ErrorKind::Interrupted.into());
        }
        for child in names(&dir)? {
            // Entered, since a directory can only be moved by who may write to it.
            if unlink_or_enter(&dir, &child)?.is_some() {
                pending.push(move_up(&dir, &child, &top, &mut counter)?);
            }
        }
        unlinkat(&top, &name, AtFlags::REMOVEDIR)?;
    }
    fs::remove_dir(path)
}

/// Removes a file, or enters a directory.
fn unlink_or_enter(parent: &OwnedFd, name: &CStr) -> io::Result<Option<OwnedFd>> {
    let refused = match unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(None),
        Err(refused @ (Errno::ISDIR | Errno::PERM)) => refused,
        Err(error) => return Err(error.into()),
    };
    match enter(parent, name) {
        // EPERM may also be somebody else's file in a sticky directory (unlink(2)).
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => Err(refused.into()),
        entered => entered.map(Some),
    }
}

/// Opens a directory below another and makes sure that we may change it.
fn enter(parent: &OwnedFd, name: &CStr) -> io::Result<OwnedFd> {
    let found = openat(parent, name, ENTER | OFlags::PATH, Mode::empty())?;
    if fstat(&found)?.st_mode & 0o700 != 0o700 {
        // Through /proc, since a directory that may not be read cannot be opened
        // for fchmod; the link leads to this very directory and no other.
        let itself = format!("/proc/self/fd/{}", found.as_raw_fd());
        fs::set_permissions(itself, Permissions::from_mode(0o700))?;
    }
    Ok(openat(parent, name, ENTER, Mode::empty())?)
}

fn move_up(from: &OwnedFd, name: &CStr, top: &OwnedFd, counter: &mut u64) -> io::Result<CString> {
    loop {
        *counter += 1;
        let new = CString::new(format!(".removed-{counter}")).map_err(io::Error::other)?;
        match renameat_with(from, name, top, &new, RenameFlags::NOREPLACE) {
            Ok(()) => return Ok(new),
            Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// What is in a directory.
///
/// # Errors
/// When it cannot be read.
pub fn names(dir: &OwnedFd) -> io::Result<Vec<CString>> {
    let mut found = Vec::new();
    for entry in Dir::read_from(dir)? {
        let name = entry?.file_name().to_owned();
        if name.as_bytes() != b"." && name.as_bytes() != b".." {
            found.push(name);
        }
    }
    Ok(found)
}

/// Gives a directory to a user of the machine, so that this user may write to it.
/// What is in it changes hands too when the directory was somebody else's: then the
/// server ran under another user before.
///
/// # Errors
/// When that is not allowed.
pub fn give(path: &Path, uid: u32) -> io::Result<()> {
    let top = open(path, ENTER, Mode::empty())?;
    if fstat(&top)?.st_uid == uid {
        return Ok(());
    }
    let (owner, group) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(uid)));
    // Paths below the top, not open directories: there may be more than we may open.
    let mut pending = vec![PathBuf::from(".")];
    while let Some(path) = pending.pop() {
        let dir = openat2(&top, &path, ENTER, Mode::empty(), inside())?;
        for name in names(&dir)? {
            chownat(&dir, &name, owner, group, AtFlags::SYMLINK_NOFOLLOW)?;
            let kind = statat(&dir, &name, AtFlags::SYMLINK_NOFOLLOW)?.st_mode;
            if FileType::from_raw_mode(kind) == FileType::Directory {
                pending.push(path.join(OsStr::from_bytes(name.as_bytes())));
            }
        }
    }
    // The top last: were we interrupted, the next time would begin again.
    Ok(rustix::fs::fchown(top.as_fd(), owner, group)?)
}

/// Moves a directory, also one that its owner has sealed: to change parents a
/// directory must be writable.
///
/// # Errors
/// When it cannot be moved.
pub fn move_dir(from: &Path, to: &Path) -> io::Result<()> {
    or_by_other_hands(move_ours(from, to), |range| range.move_dir(from, to))
}

fn move_ours(from: &Path, to: &Path) -> io::Result<()> {
    match fs::rename(from, to) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            let (Some(parent), Some(name)) = (from.parent(), from.file_name()) else {
                return Err(error);
            };
            let parent = open(parent, ENTER, Mode::empty())?;
            let name = CString::new(name.as_bytes()).map_err(io::Error::other)?;
            drop(enter(&parent, &name)?);
            fs::rename(from, to)
        }
        other => other,
    }
}

/// Whether the files below a directory take more than `cap` bytes on the disk.
///
/// # Errors
/// When the directory cannot be opened; what lies too deep is not counted.
pub fn is_larger(path: &Path, cap: u64, go_on: &dyn Fn() -> bool) -> io::Result<bool> {
    or_by_other_hands(is_ours_larger(path, cap, go_on), |range| match range.size(path) {
        Err(error) if error.kind() == io::ErrorKind::TimedOut => Ok(true),
        size => Ok(size? > cap),
    })
}

fn is_ours_larger(path: &Path, cap: u64, go_on: &dyn Fn() -> bool) -> io::Result<bool> {
    let ours = fs::symlink_metadata(path)?.uid() == rustix::process::geteuid().as_raw();
    let top = open(path, ENTER, Mode::empty())?;
    let mut taken = 0_u64;
    let mut pending = vec![PathBuf::from(".")];
    while let Some(path) = pending.pop().filter(|_| go_on()) {
        let dir = match openat2(&top, &path, ENTER, Mode::empty(), inside()) {
            Ok(dir) => dir,
            // Sealed by its owner; ours it would be easy to open.
            Err(Errno::ACCESS) if !ours => return Err(Errno::ACCESS.into()),
            Err(_) => continue,
        };
        for name in names(&dir)? {
            let Ok(stat) = statat(&dir, &name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
            // st_blocks counts 512 bytes each (stat(2)).
            taken = taken.saturating_add(u64::try_from(stat.st_blocks).unwrap_or(0) * 512);
            if taken > cap {
                return Ok(true);
            }
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                pending.push(path.join(OsStr::from_bytes(name.as_bytes())));
            }
        }
    }
    Ok(false)
}

/// Bytes free and in all, where `path` is.
///
/// # Errors
/// When the system does not say.
pub fn space(path: &Path) -> io::Result<Space> {
    let stat = statvfs(path)?;
    let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
    Ok(Space { free: bytes(stat.f_bavail), all: bytes(stat.f_blocks) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_release_is_read_without_following_its_links() {
        let dir = tempfile::tempdir().unwrap();
        let release = dir.path().join("release");
        fs::create_dir_all(release.join("web")).unwrap();
        fs::write(dir.path().join("secret"), "secret").unwrap();
        fs::write(release.join("web/Procfile"), "web: x").unwrap();
        symlink("../secret", release.join("file")).unwrap();
        symlink("..", release.join("up")).unwrap();
        symlink("web", release.join("link")).unwrap();
        let tree = Tree::open(&release, "web").unwrap();
        assert_eq!(tree.read("Procfile", 100).as_deref(), Some("web: x"));
        assert_eq!(tree.read("Procfile", 3), None, "longer than its cap");
        assert!(tree.has_file("Procfile") && !tree.has_file("none"));
        assert_eq!(tree.read("../../secret", 100), None);
        let top = Tree::open(&release, "").unwrap();
        assert!(top.read("file", 100).is_none() && !top.has_file("file"));
        assert!(top.read("link/Procfile", 100).is_none());
        for bad in ["up", "link", "..", "nothing", "web/Procfile"] {
            assert!(Tree::open(&release, bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_named_pipe_does_not_hang_the_reader() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("Procfile");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, FileType::Fifo, Mode::RWXU, 0).unwrap();
        let tree = Tree::open(dir.path(), "").unwrap();
        assert_eq!(tree.read("Procfile", 100), None);
        assert!(!tree.has_file("Procfile"));
    }

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
    fn root_gives_a_tree_away_but_not_what_it_links_to() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let (tree, kept) = (dir.path().join("tree"), dir.path().join("kept"));
        fs::create_dir_all(tree.join("a/b")).unwrap();
        fs::write(&kept, "x").unwrap();
        symlink(&kept, tree.join("a/b/link")).unwrap();
        give(&tree, 1_900_000_001).unwrap();
        let owner = |path: &Path| fs::symlink_metadata(path).unwrap().uid();
        for path in [tree.clone(), tree.join("a"), tree.join("a/b"), tree.join("a/b/link")] {
            assert_eq!(owner(&path), 1_900_000_001, "{}", path.display());
        }
        assert_eq!(owner(&kept), 0);
    }

    #[test]
    fn the_size_of_a_tree_is_known_and_a_sealed_one_can_be_moved() {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tree");
        fs::create_dir_all(tree.join("a")).unwrap();
        fs::write(tree.join("a/file"), vec![1; 100_000]).unwrap();
        let larger = |cap| is_larger(&tree, cap, &|| true).unwrap();
        assert!(larger(50_000) && !larger(1_000_000));
        fs::create_dir(dir.path().join("other")).unwrap();
        fs::set_permissions(&tree, Permissions::from_mode(0o000)).unwrap();
        move_dir(&tree, &dir.path().join("other/moved")).unwrap();
        remove_tree(&dir.path().join("other")).unwrap();
    }

    #[test]
    fn there_is_space_and_it_is_less_than_all() {
        let space = space(Path::new("/")).unwrap();
        assert!(space.free > 0 && space.free <= space.all);
    }
}
