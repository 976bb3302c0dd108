//! The lock that keeps a second server out of the data directory (P26).

use super::{DataDirError, FILE_MODE};
use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::Errno;
use std::fs::{File, OpenOptions};
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
    /// This process.
    #[must_use]
    pub fn this(pinned: bool) -> Self {
        Self { pid: Some(std::process::id()), pinned }
    }

    fn note(self) -> String {
        let token = if self.pinned { "env" } else { "file" };
        format!("pid={} token={token}", self.pid.unwrap_or_default())
    }

    fn read(note: &str) -> Self {
        let value = |name: &str| note.split(' ').find_map(|word| word.strip_prefix(name));
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
    pub(super) fn take(directory: &Path, holder: Holder) -> Result<Self, DataDirError> {
        let path = directory.join(NAME);
        let broken = |why: io::Error| DataDirError::Lock { path: path.clone(), why };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(FILE_MODE)
            .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
            .open(&path)
            .map_err(broken)?;
        let mut tries = TRIES;
        loop {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => break,
                Err(Errno::WOULDBLOCK) if tries > 1 => {
                    tries -= 1;
                    thread::sleep(PAUSE);
                }
                Err(Errno::WOULDBLOCK) => {
                    let holder = note_in(&mut file);
                    return Err(DataDirError::Busy { path: directory.to_owned(), holder });
                }
                Err(Errno::INTR) => {}
                Err(error) => return Err(broken(error.into())),
            }
        }
        file.set_len(0).map_err(broken)?;
        match writeln!(file, "{}", holder.note()) {
            // Who holds the lock can make room; the note can wait.
            Err(error) if error.kind() == io::ErrorKind::StorageFull => {}
            written => written.map_err(broken)?,
        }
        Ok(Self { file })
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // A note without a holder is never read; emptying it is for tidiness.
        let _ = self.file.set_len(0);
        unlock(&self.file);
    }
}

pub(super) fn holder(directory: &Path) -> Option<Holder> {
    let mut file = File::open(directory.join(NAME)).ok()?;
    // A shared lock: two that look at the same time do not see each other.
    match flock(&file, FlockOperation::NonBlockingLockShared) {
        Err(Errno::WOULDBLOCK) => Some(note_in(&mut file)),
        _ => {
            unlock(&file);
            None
        }
    }
}

/// Closing would do, were it not for a program that another thread is starting
/// at this moment: until it is there, it has a copy of the open file.
fn unlock(file: &File) {
    let _ = flock(file, FlockOperation::Unlock);
}

fn note_in(file: &mut File) -> Holder {
    let mut note = Vec::new();
    // An unreadable note is an empty one: that the lock is held is known anyway.
    let _ = file.take(MAX_NOTE).read_to_end(&mut note);
    Holder::read(String::from_utf8_lossy(&note).trim_end())
}
