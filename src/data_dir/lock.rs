//! The lock that keeps a second server out of the data directory (P26).

use super::{DataDirError, FILE_MODE, advice};
use rustix::fs::OFlags;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::thread;
use std::time::Duration;

/// The file that is locked; it stays when the lock goes.
const NAME: &str = "lock";
/// Bytes read of another process's note.
const MAX_NOTE: u64 = 4096;
/// [`holder`] has the lock for a moment while it looks; these tries outlast it,
/// so that an operator's command cannot make a starting server give up.
const TRIES: u32 = 25;
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(10);

/// Who holds a data directory, as a note in the lock file says to others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holder {
    /// Its process id; `None` when the note cannot be read.
    pub pid: Option<u32>,
    /// Whether its environment pins the admin token (P4).
    pub pinned: bool,
}

impl Holder {
    /// What the note in the lock file says.
    fn in_note(file: &mut File) -> Self {
        let mut note = Vec::new();
        // An unreadable note is an empty one: that the lock is held is known anyway.
        let _ = file.take(MAX_NOTE).read_to_end(&mut note);
        let note = String::from_utf8_lossy(&note);
        let value = |name: &str| note.split_whitespace().find_map(|word| word.strip_prefix(name));
        Self {
            pid: value("pid=").and_then(|pid| pid.parse().ok()),
            pinned: value("token=") == Some("env"),
        }
    }
}

/// The data directory is this process's own as long as this lives. The system
/// gives it back when the process ends, however it ends.
#[derive(Debug)]
#[must_use = "the directory is free again as soon as this is dropped"]
pub struct Lock {
    file: File,
}

impl Lock {
    pub(super) fn take(directory: &Path, pinned: bool) -> Result<Self, DataDirError> {
        let path = directory.join(NAME);
        let broken = |why: io::Error| {
            let (path, advice) = (path.display(), advice(&why));
            DataDirError::Sentence(format!("could not lock {path}: {why}{advice}"))
        };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(FILE_MODE)
            .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
            .open(&path)
            .map_err(broken)?;
        let mut tries = 1..TRIES;
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::Error(error)) => return Err(broken(error)),
                Err(TryLockError::WouldBlock) if tries.next().is_some() => thread::sleep(PAUSE),
                Err(TryLockError::WouldBlock) => {
                    let pid = Holder::in_note(&mut file).pid;
                    let process = pid.map(|pid| format!(" (process {pid})")).unwrap_or_default();
                    return Err(DataDirError::Sentence(format!(
                        "another server already works in {}{process}; stop it, or give this one \
                         its own directory with DATA_DIR",
                        directory.display()
                    )));
                }
            }
        }
        file.set_len(0).map_err(broken)?;
        let token = if pinned { "env" } else { "file" };
        match writeln!(file, "pid={} token={token}", std::process::id()) {
            // Who holds the lock can make room; the note can wait.
            Err(error) if error.kind() == io::ErrorKind::StorageFull => {}
            written => written.map_err(broken)?,
        }
        Ok(Self { file })
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing would do, were it not for a program that another thread is starting
        // at this moment: until it is there, it has a copy of the open file.
        let _ = self.file.unlock();
    }
}

pub(super) fn holder(directory: &Path) -> Option<Holder> {
    let mut file = File::open(directory.join(NAME)).ok()?;
    // A shared lock: two that look at the same time do not see each other.
    if let Err(TryLockError::WouldBlock) = file.try_lock_shared() {
        return Some(Holder::in_note(&mut file));
    }
    let _ = file.unlock();
    None
}
