//! Directories that an app has filled: read without ever following one of their links, in
//! memory that does not grow with them.

use crate::model::{AnyError, failed};
use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, Stat, fstat, open, openat2, statat,
};
use rustix::path::Arg;
use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A directory, entered for good: what its owner renames or links meanwhile
/// changes nothing about which one it is.
pub const ENTER: OFlags = OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Bytes that the paths of directories may have: all may be in memory at once.
const LONGEST_PATHS: usize = 8 << 20;

/// Is shown a path from the top of a tree, and what the system says of it; nothing when it cannot
/// be looked at or into. Answers whether to go into a directory.
pub type Visit<'a, E> = dyn FnMut(&Path, Option<&Stat>) -> Result<bool, E> + 'a;

/// A release as it was checked out.
pub struct Tree {
    /// Its top.
    pub top: OwnedFd,
}

impl Tree {
    /// Opens the directory `below` a release, without following a link on the way.
    ///
    /// # Errors
    /// When it is not there or is not a directory.
    pub fn open(release: &Path, below: &str) -> io::Result<Self> {
        let top = open(release, ENTER, Mode::empty())?;
        let below = Path::new(".").join(below);
        Ok(Self { top: openat2(&top, &below, ENTER, Mode::empty(), inside())? })
    }

    /// A regular file, opened, if it is there.
    pub fn file(&self, path: impl Arg) -> Option<File> {
        // NONBLOCK: opening a named pipe would wait for its other end.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = File::from(openat2(&self.top, path, flags, Mode::empty(), inside()).ok()?);
        file.metadata().ok()?.is_file().then_some(file)
    }

    /// The text of a regular file, lossy, if it is there and no longer than `cap` bytes.
    pub fn read(&self, path: impl AsRef<[u8]>, cap: u64) -> Option<String> {
        let file = self.file(path.as_ref())?;
        if file.metadata().ok()?.len() > cap { None } else { text(file, cap) }
    }

    /// The first bytes of a regular file, lossy, if it is there.
    pub fn read_start(&self, path: &str, bytes: u64) -> Option<String> {
        text(self.file(path.as_bytes())?, bytes)
    }

    /// Names in a directory, at most so many; none where there is no directory.
    pub fn names(&self, dir: &str, most: usize) -> Vec<String> {
        let place = Path::new(".").join(dir);
        let Ok(dir) = openat2(&self.top, &place, ENTER, Mode::empty(), inside()) else {
            return Vec::new();
        };
        let all = entries(&dir).into_iter().flatten().flatten();
        let mut names: Vec<_> = all.filter_map(|name| name.into_string().ok()).take(most).collect();
        names.sort();
        names
    }

    /// What the system says of a regular file, if it is there.
    fn stat(&self, path: &str) -> Option<Stat> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat2(&self.top, path, flags, Mode::empty(), inside()).ok()?;
        let stat = fstat(file).ok()?;
        (FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile).then_some(stat)
    }

    /// Bytes of a regular file, if it is there.
    pub fn size(&self, path: &str) -> Option<u64> {
        u64::try_from(self.stat(path)?.st_size).ok()
    }

    /// When a regular file was written last, if it is there.
    pub fn modified(&self, path: &str) -> Option<SystemTime> {
        let stat = self.stat(path)?;
        let nanos = u32::try_from(stat.st_mtime_nsec).ok()?;
        Some(UNIX_EPOCH + Duration::new(u64::try_from(stat.st_mtime).ok()?, nanos))
    }

    /// Whether a regular file of this name is there.
    pub fn has_file(&self, name: &str) -> bool {
        self.size(name).is_some()
    }

    /// Shows all of it to `visit`, the top first and a directory before what is in it.
    ///
    /// # Errors
    /// That of `visit`; or when a directory cannot be read, or the paths are too long for memory.
    pub fn walk<E: From<AnyError>>(&self, visit: &mut Visit<'_, E>) -> Result<(), E> {
        let mut waiting = vec![PathBuf::new()];
        let mut paths = 0;
        while let Some(path) = waiting.pop() {
            let place = Path::new(".").join(&path);
            let dir = openat2(&self.top, &place, ENTER, Mode::empty(), inside()).ok();
            let stat = dir.as_ref().and_then(|dir| fstat(dir).ok());
            let enter = visit(&path, stat.as_ref())?;
            let Some(dir) = dir.filter(|_| enter) else { continue };
            let unread = |error| failed("a directory could not be read")(error);
            for name in entries(&dir).map_err(unread)? {
                let name = name.map_err(unread)?;
                let below = path.join(OsStr::from_bytes(name.as_bytes()));
                let stat = statat(&dir, &name, AtFlags::SYMLINK_NOFOLLOW).ok();
                let kind = stat.map(|stat| FileType::from_raw_mode(stat.st_mode));
                if kind != Some(FileType::Directory) {
                    visit(&below, stat.as_ref())?;
                    continue;
                }
                paths += below.as_os_str().len();
                if paths > LONGEST_PATHS {
                    let sentence = "there are too many directories with long names";
                    return Err(AnyError::from(sentence).into());
                }
                waiting.push(below);
            }
        }
        Ok(())
    }
}

fn text(file: File, cap: u64) -> Option<String> {
    let mut bytes = Vec::new();
    file.take(cap).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// No way out and no links: neither by `..` nor by a link planted in a repository.
pub fn inside() -> ResolveFlags {
    ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
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
}
