//! Directories that an app has filled: read, moved and removed without ever
//! following one of their links, in memory that does not grow with them.

mod remove;

pub use remove::{remove_tree, remove_tree_while};

use super::space::Space;
use super::subuid::Range;
use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, fstat, open, openat, openat2, statat,
    statvfs,
};
use rustix::io::Errno;
use std::ffi::{CStr, CString, OsStr};
use std::fs::{self, File, Permissions};
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// A directory, entered for good: what its owner renames or links meanwhile
/// changes nothing about which one it is.
pub const ENTER: OFlags = OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Bytes of directories' paths that are kept to be looked at: tens of thousands of them side
/// by side, more than any real tree has.
const WAITING: usize = 4 << 20;

/// Bytes that a path takes in memory besides its own.
const PATH_ITSELF: usize = 64;

/// What a file takes of a disk at least, also an empty one: file systems have an inode for
/// every 16 KiB (mke2fs.conf(5)) or every 4 KiB where they are made for small files.
const LEAST_FILE: u64 = 4 << 10;

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

    /// [`Tree::read`] of a path that others have chosen, of any bytes.
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

/// What an app owns cannot be changed by an ordinary user's server itself.
fn or_as_root_of_range<T>(
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

/// What is in a directory, one name after the other: how many there are is its owner's choice.
///
/// # Errors
/// When it cannot be read.
pub fn entries(dir: &OwnedFd) -> io::Result<impl Iterator<Item = io::Result<CString>> + use<>> {
    Ok(Dir::read_from(dir)?.filter_map(|entry| match entry {
        Ok(entry) if matches!(entry.file_name().to_bytes(), b"." | b"..") => None,
        Ok(entry) => Some(Ok(entry.file_name().to_owned())),
        Err(error) => Some(Err(error.into())),
    }))
}

/// Directories below a top that are still to be looked at: their paths, since there may be
/// more than we may open.
#[derive(Debug)]
pub struct Waiting {
    paths: Vec<PathBuf>,
    bytes: usize,
}

impl Waiting {
    /// With the top itself.
    #[must_use]
    pub fn top() -> Self {
        Self { paths: vec![PathBuf::new()], bytes: PATH_ITSELF }
    }

    /// One more; `false` when that would be too many.
    #[must_use]
    pub fn push(&mut self, path: &Path) -> bool {
        self.bytes += path.as_os_str().len() + PATH_ITSELF;
        self.paths.push(path.to_owned());
        self.bytes <= WAITING
    }

    /// The next one, and how it is opened from the top.
    pub fn pop(&mut self) -> Option<(PathBuf, PathBuf)> {
        let path = self.paths.pop()?;
        self.bytes -= path.as_os_str().len() + PATH_ITSELF;
        let place = Path::new(".").join(&path);
        Some((path, place))
    }
}

/// Moves a directory, also one that its owner has sealed: to change parents a
/// directory must be writable.
///
/// # Errors
/// When it cannot be moved.
pub fn move_dir(from: &Path, to: &Path) -> io::Result<()> {
    or_as_root_of_range(move_ours(from, to), |range| range.move_dir(from, to))
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
    or_as_root_of_range(is_ours_larger(path, cap, go_on), |range| match range.size(path) {
        Err(error) if error.kind() == io::ErrorKind::TimedOut => Ok(true),
        size => {
            let (bytes, files) = size?;
            Ok(bytes.max(files.saturating_mul(LEAST_FILE)) > cap)
        }
    })
}

fn is_ours_larger(path: &Path, cap: u64, go_on: &dyn Fn() -> bool) -> io::Result<bool> {
    let ours = fs::symlink_metadata(path)?.uid() == rustix::process::geteuid().as_raw();
    let top = open(path, ENTER, Mode::empty())?;
    let mut taken = 0_u64;
    let mut waiting = Waiting::top();
    while let Some((path, place)) = waiting.pop().filter(|_| go_on()) {
        let dir = match openat2(&top, &place, ENTER, Mode::empty(), inside()) {
            Ok(dir) => dir,
            // Sealed by its owner; ours it would be easy to open.
            Err(Errno::ACCESS) if !ours => return Err(Errno::ACCESS.into()),
            Err(_) => continue,
        };
        for name in entries(&dir)? {
            let name = name?;
            let Ok(stat) = statat(&dir, &name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
            // st_blocks counts 512 bytes each (stat(2)).
            let bytes = u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(512);
            taken = taken.saturating_add(bytes.max(LEAST_FILE));
            let is_dir = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
            // What cannot be counted is too large.
            if taken > cap
                || (is_dir && !waiting.push(&path.join(OsStr::from_bytes(name.as_bytes()))))
            {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// What is free and what there is in all, where `path` is.
///
/// # Errors
/// When the system does not say.
pub fn space(path: &Path) -> io::Result<Space> {
    let stat = statvfs(path)?;
    let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
    Ok(Space {
        free: bytes(stat.f_bavail),
        all: bytes(stat.f_blocks),
        free_files: stat.f_favail,
        files: stat.f_files,
    })
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
    fn the_size_of_a_tree_is_known_and_a_sealed_one_can_be_moved() {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tree");
        fs::create_dir_all(tree.join("a")).unwrap();
        fs::write(tree.join("a/file"), vec![1; 100_000]).unwrap();
        let larger = |cap| is_larger(&tree, cap, &|| true).unwrap();
        assert!(larger(50_000) && !larger(1_000_000));
        for number in 0..300 {
            fs::File::create(tree.join(format!("a/empty-{number}"))).unwrap();
        }
        assert!(larger(1_000_000), "files take of a disk also when they are empty");
        fs::create_dir(dir.path().join("other")).unwrap();
        fs::set_permissions(&tree, Permissions::from_mode(0o000)).unwrap();
        move_dir(&tree, &dir.path().join("other/moved")).unwrap();
        remove_tree(&dir.path().join("other")).unwrap();
    }

    #[test]
    fn a_tree_with_more_directories_than_may_wait_is_a_large_one() {
        let dir = tempfile::tempdir().unwrap();
        let long = dir.path().join(format!("{0}/{0}/{0}/{0}", "d".repeat(250)));
        fs::create_dir_all(&long).unwrap();
        (0..WAITING / 1000).for_each(|n| fs::create_dir(long.join(n.to_string())).unwrap());
        assert!(is_larger(dir.path(), u64::MAX, &|| true).unwrap());
    }

    #[test]
    fn there_is_space_and_it_is_less_than_all() {
        let space = space(Path::new("/")).unwrap();
        assert!(space.free > 0 && space.free <= space.all);
    }
}
