//! The data directory, which holds everything that must survive a restart (P25).
//!
//! Nobody but its owner can look into it, a file that matters is replaced whole
//! or not at all, and one server at a time works in it.

mod guard;
mod lock;
#[cfg(test)]
mod tests;
pub mod user;

pub use lock::{Holder, Lock};

use crate::model::Secret;
use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use zeroize::Zeroizing;

/// Mode of every directory that is made here.
const DIR_MODE: u32 = 0o700;
/// Mode of every file that is made here.
const FILE_MODE: u32 = 0o600;
/// Bytes that a secret file may have. Tokens and keys take about 70; more is a
/// wrong file, which must not be read into memory whole.
const MAX_SECRET_FILE: u64 = 64 * 1024;
/// What the name of a half-written file ends with.
const TEMPORARY: &str = ".tmp";
/// A temporary file of this age has lost its writer, who needs milliseconds.
const ABANDONED: Duration = Duration::from_secs(60);

/// The data directory, checked and private. Cheap to clone.
#[derive(Debug, Clone)]
pub struct DataDir {
    path: Arc<Path>,
}

impl DataDir {
    /// Makes the directory, or checks and tightens the one that is there (P25).
    ///
    /// Files at its top and everything in `logs` and `backups` lose whatever
    /// other users were allowed; what lies under `apps` belongs to the apps and
    /// keeps its modes. Links inside are not followed.
    ///
    /// # Errors
    /// [`DataDirError`] when it cannot be used, belongs to another user, or is a
    /// link to a place that others can write.
    pub fn open(path: &Path) -> Result<Self, DataDirError> {
        let real = guard::admit(path)?;
        guard::tighten(&real)?;
        Ok(Self { path: Arc::from(real) })
    }

    /// Where it is: absolute, with every link resolved.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Takes the directory for this process until the [`Lock`] is dropped (P26).
    /// Others are told who holds it, and whether its environment pins the admin token.
    ///
    /// # Errors
    /// When another process has it, or the file `lock` cannot be used.
    pub fn lock(&self, pinned: bool) -> Result<Lock, DataDirError> {
        let lock = Lock::take(&self.path, pinned)?;
        self.remove_abandoned();
        Ok(lock)
    }

    /// The process that holds the directory now, if there is one.
    pub fn holder(&self) -> Option<Holder> {
        lock::holder(&self.path)
    }

    /// Replaces the file `name` as [`replace`] does.
    ///
    /// # Errors
    /// The reason with the path, as for a full or read-only disk; the file is
    /// then what it was.
    pub fn write_secret(&self, name: &str, content: &[u8]) -> io::Result<()> {
        let target = self.path.join(name);
        replace(&target, content).map_err(|error| explained("write", &target, &error))
    }

    /// Reads the file `name`; `None` when there is none.
    ///
    /// # Errors
    /// The reason with the path: not a regular file, a link, too long, not text.
    pub fn read_secret(&self, name: &str) -> io::Result<Option<Secret>> {
        read_text(&self.path.join(name), rustix::fs::OFlags::NOFOLLOW)
    }

    /// A path inside the directory.
    pub fn join(&self, rel: &str) -> PathBuf {
        self.path.join(rel)
    }

    /// Makes a directory inside, mode 0700, with the ones above it; one that is
    /// there is fine.
    ///
    /// # Errors
    /// The reason with the path. A relative path with `..` is refused.
    pub fn make_dir(&self, rel: &str) -> io::Result<PathBuf> {
        let mut path = self.path.to_path_buf();
        for part in Path::new(rel).components() {
            let Component::Normal(part) = part else {
                let text = format!("{rel:?} is not a path inside the data directory");
                return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
            };
            path.push(part);
            make_private(&path).map_err(|error| explained("make", &path, &error))?;
        }
        Ok(path)
    }

    /// Removes what a killed process left of a [`DataDir::write_secret`]: it may
    /// hold a token or a key that was never in force.
    fn remove_abandoned(&self) {
        let Ok(entries) = fs::read_dir(&self.path) else { return };
        for entry in entries.flatten() {
            if is_abandoned(&entry) && fs::remove_file(entry.path()).is_ok() {
                log::info!("removed {:?}, left by a write that was cut short", entry.file_name());
            }
        }
    }
}

/// Reads a small secret text that a program put somewhere, such as a systemd
/// credential; links are followed. `None` when nothing is there.
///
/// # Errors
/// The reason with the path: not a regular file, too long, not text.
pub fn read_secret_at(path: &Path) -> io::Result<Option<Secret>> {
    read_text(path, rustix::fs::OFlags::empty())
}

fn read_text(path: &Path, flags: rustix::fs::OFlags) -> io::Result<Option<Secret>> {
    // NONBLOCK: a FIFO of that name must not hang the server.
    let flags = (flags | rustix::fs::OFlags::NONBLOCK).bits().cast_signed();
    let refused = |why: &str| io::Error::new(io::ErrorKind::InvalidData, why);
    let read = || {
        let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
        let meta = file.metadata()?;
        if !meta.is_file() {
            return Err(refused("it is not a regular file"));
        }
        // Room for all of it at once, so that growing leaves no copies in memory.
        let room = usize::try_from(meta.len().min(MAX_SECRET_FILE)).unwrap_or(0) + 1;
        let mut bytes = Zeroizing::new(Vec::with_capacity(room));
        file.take(MAX_SECRET_FILE + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > MAX_SECRET_FILE {
            return Err(refused("it is longer than 64 KiB"));
        }
        String::from_utf8(std::mem::take(&mut *bytes)).map_err(|error| {
            drop(Zeroizing::new(error.into_bytes()));
            refused("it is not text")
        })
    };
    match read() {
        Ok(text) => Ok(Some(Secret::new(text))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(explained("read", path, &error)),
    }
}

/// Replaces a file so that a crash leaves the old or the new content, never a part of it:
/// temporary file, fsync, rename, fsync of the directory. Its mode is 0600.
///
/// # Errors
/// As for a full or read-only disk; the file is then what it was.
pub fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    replace_filled(path, FILE_MODE, |file| file.write_all(content))
}

/// The same with another mode, and content that `fill` writes.
///
/// # Errors
/// As [`replace`].
pub fn replace_filled(
    path: &Path,
    mode: u32,
    fill: impl FnOnce(&mut File) -> io::Result<()>,
) -> io::Result<()> {
    let (directory, name) =
        path.parent().zip(path.file_name()).ok_or(io::ErrorKind::InvalidInput)?;
    let mut random = [0; 8];
    getrandom::fill(&mut random).map_err(io::Error::other)?;
    let (name, random) = (name.to_string_lossy(), u64::from_be_bytes(random));
    // Its own name: several may write at once.
    let temporary = directory.join(format!(".{name}.{random:016x}{TEMPORARY}"));
    // Closed to others until it is whole; the umask can only take away from the mode.
    let mut options = OpenOptions::new();
    let written = options
        .write(true)
        .create_new(true)
        .mode(FILE_MODE)
        .open(&temporary)
        .and_then(|mut file| {
            fill(&mut file)?;
            file.sync_all()?;
            file.set_permissions(Permissions::from_mode(mode))
        })
        .and_then(|()| fs::rename(&temporary, path))
        .and_then(|()| File::open(directory)?.sync_all());
    written.inspect_err(|_| {
        // Its content may be a secret, so it must not stay; after the rename it is gone already.
        let _ = fs::remove_file(&temporary);
    })
}

/// What the names in a directory stand for, in order; others are passed over.
pub fn named<T: Ord>(dir: &Path, read: impl Fn(&str) -> Option<T>) -> Vec<T> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut found: Vec<T> = entries.filter_map(|entry| read(entry.file_name().to_str()?)).collect();
    found.sort_unstable();
    found.dedup();
    found
}

/// For what is to be removed: that it is not there is fine.
///
/// # Errors
/// All others.
pub fn gone_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn make_private(path: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(DIR_MODE).create(path) {
        Ok(()) => fs::set_permissions(path, Permissions::from_mode(DIR_MODE)),
        // Not a link, which is no directory here.
        Err(_) if fs::symlink_metadata(path).is_ok_and(|there| there.is_dir()) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Whether it is what a write that was cut short has left.
pub fn is_abandoned(entry: &fs::DirEntry) -> bool {
    let name = entry.file_name();
    let name = name.as_encoded_bytes();
    name.starts_with(b".")
        && name.ends_with(TEMPORARY.as_bytes())
        && entry.metadata().is_ok_and(|m| {
            let age = m.modified().map(|at| SystemTime::now().duration_since(at));
            m.is_file() && age.is_ok_and(|age| age.is_ok_and(|age| age > ABANDONED))
        })
}

/// The error with what was tried, where, and what to do if that is known.
fn explained(verb: &str, path: &Path, error: &io::Error) -> io::Error {
    let advice = advice(error);
    let text = format!("could not {verb} {}: {error}{advice}", path.display());
    io::Error::new(error.kind(), text)
}

fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "; free some space there",
        io::ErrorKind::ReadOnlyFilesystem => "; mount that file system writable",
        io::ErrorKind::PermissionDenied => "; run the server as the user who owns it",
        _ => "",
    }
}

/// Why the data directory cannot be used.
#[derive(Debug)]
pub enum DataDirError {
    /// It, or a file in it, belongs to another user.
    Foreign {
        /// What belongs to another user.
        path: PathBuf,
        /// The user who owns it.
        owner: u32,
        /// The user as whom this process runs.
        us: u32,
    },
    /// Anything else: what is the matter, then what to do.
    Sentence(String),
}

impl DataDirError {
    /// It cannot be made or looked at.
    fn unusable(path: &Path, why: &io::Error) -> Self {
        let advice = match advice(why) {
            "" => "; name another one with DATA_DIR".to_owned(),
            advice => format!("{advice}, or name another one with DATA_DIR"),
        };
        let path = path.display();
        Self::Sentence(format!("cannot use the data directory {path}: {why}{advice}"))
    }
}

impl fmt::Display for DataDirError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Foreign { path, owner, us } => write!(
                f,
                "{} belongs to user {} and the server runs as user {us}; run it as that user, or, \
                 if it shall run as {us} from now on, give it the directory: chown -R {us} {}",
                path.display(),
                user::name(*owner),
                path.display(),
                us = user::name(*us)
            ),
            Self::Sentence(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for DataDirError {}
