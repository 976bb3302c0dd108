//! One app's log: the file that its process writes to, with the older half of it.
//!
//! The process holds the file open for as long as it runs, so rotation copies
//! what is there to `<app>.log.1` and empties the file; a writer with
//! `O_APPEND` goes on at its start.

use super::create_private;
use super::redact::Redactor;
use crate::sync::lock;
use rustix::fs::OFlags;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};

/// Bytes read at once when looking for the last lines.
const BLOCK: usize = 64 * 1024;

/// How far back from the end the last lines are looked for, in bytes.
const FARTHEST: u64 = 2 * 1024 * 1024;

/// How often a log was rotated, and what the last time left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Rotation {
    count: u64,
    /// Bytes at the file's start that were too old to keep.
    left_out: u64,
}

/// A place from which to read a log.
pub(super) struct Place {
    pub file: File,
    pub offset: u64,
    pub older: Option<(File, u64)>,
    pub rotation: Rotation,
}

/// The log of one app, shared by all who write, follow or rotate it.
pub(super) struct AppLog {
    path: PathBuf,
    rotation: Mutex<Rotation>,
    redactor: Mutex<Redactor>,
    removed: AtomicBool,
}

impl AppLog {
    pub(super) fn new(path: PathBuf) -> Self {
        Self {
            path,
            rotation: Mutex::default(),
            redactor: Mutex::default(),
            removed: AtomicBool::new(false),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    fn older_path(&self) -> PathBuf {
        self.path.with_extension("log.1")
    }

    pub(super) fn redactor(&self) -> Redactor {
        lock(&self.redactor).clone()
    }

    pub(super) fn set_redactor(&self, new: &Redactor) {
        *lock(&self.redactor) = new.clone();
    }

    /// Keeps the log from being rotated for as long as the guard lives.
    pub(super) fn hold(&self) -> MutexGuard<'_, Rotation> {
        lock(&self.rotation)
    }

    pub(super) fn is_removed(&self) -> bool {
        self.removed.load(Ordering::Acquire)
    }

    /// A handle that appends and cannot read; the file is made if need be.
    pub(super) fn append(&self) -> io::Result<File> {
        create_private(OpenOptions::new().append(true), &self.path)
    }

    fn open(&self) -> io::Result<File> {
        match open_to_read(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.append()?;
                open_to_read(&self.path)
            }
            opened => opened,
        }
    }

    /// The place where the last lines begin, in the older half if they must.
    pub(super) fn place_of_last(&self, lines: usize) -> io::Result<Place> {
        let rotation = self.hold();
        let file = self.open()?;
        let (offset, found) = start_of_last(&file, lines)?;
        let mut older = None;
        if found < lines
            && let Ok(file) = open_to_read(&self.older_path())
        {
            let (offset, _) = start_of_last(&file, lines - found)?;
            older = Some((file, offset));
        }
        Ok(Place { file, offset, older, rotation: *rotation })
    }

    /// Moves what the log holds to its older half when it is over `limit` bytes;
    /// of that, the last `limit` bytes are kept, and what comes while they are copied.
    pub(super) fn rotate(&self, limit: u64) -> io::Result<()> {
        let mut rotation = self.hold();
        let mut options = OpenOptions::new();
        options.read(true).write(true).custom_flags(NOFOLLOW);
        let mut file = match options.open(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            opened => opened?,
        };
        let length = file.metadata()?.len();
        if length <= limit {
            return Ok(());
        }
        let left_out = after_next_line_end(&file, length - limit, length)?;
        file.seek(SeekFrom::Start(left_out))?;
        let new = self.path.with_extension("log.new");
        let mut kept = create_private(OpenOptions::new().write(true).truncate(true), &new)?;
        // Bounded, or a process that never stops writing would keep us and the lock for
        // ever; twice, since what it wrote during the first copy, which takes a moment,
        // would be lost.
        for _ in 0..2 {
            io::copy(&mut (&mut file).take(limit), &mut kept)?;
        }
        fs::rename(&new, self.older_path())?;
        io::copy(&mut (&mut file).take(limit), &mut kept)?;
        file.set_len(0)?;
        *rotation = Rotation { count: rotation.count + 1, left_out };
        Ok(())
    }

    /// Deletes the files and sends the followers away.
    pub(super) fn remove(&self) -> io::Result<()> {
        let _held = self.hold();
        self.removed.store(true, Ordering::Release);
        for path in [&self.path, &self.older_path(), &self.path.with_extension("log.new")] {
            match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}

impl Rotation {
    /// Where to go on reading after a rotation, for a reader that stood at `offset`.
    pub(super) fn moved_since(&self, then: Self, offset: u64, log: &AppLog) -> Option<(File, u64)> {
        if self.count != then.count + 1 {
            // More than one rotation ago: all of the older half is news.
            return open_to_read(&log.older_path()).ok().map(|file| (file, 0));
        }
        let file = open_to_read(&log.older_path()).ok()?;
        Some((file, offset.saturating_sub(self.left_out)))
    }
}

const NOFOLLOW: i32 = OFlags::NOFOLLOW.bits().cast_signed();

pub(super) fn open_to_read(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(NOFOLLOW).open(path)
}

/// Where the last `lines` lines of a file begin, and how many were found.
fn start_of_last(file: &File, lines: usize) -> io::Result<(u64, usize)> {
    let length = file.metadata()?.len();
    let floor = length.saturating_sub(FARTHEST);
    let (mut at, mut found) = (length, 0);
    let mut block = vec![0; BLOCK];
    while at > floor {
        let size = usize::try_from((at - floor).min(BLOCK as u64)).unwrap_or(BLOCK);
        at -= size as u64;
        file.read_exact_at(&mut block[..size], at)?;
        for index in (0..size).rev() {
            let place = at + index as u64 + 1;
            // The line end at the very end closes the last line, it begins none.
            if block[index] == b'\n' && place < length {
                found += 1;
                if found == lines || lines == 0 {
                    return Ok((if lines == 0 { length } else { place }, found.min(lines)));
                }
            }
        }
    }
    if lines == 0 || length == 0 {
        return Ok((length, 0));
    }
    if floor == 0 {
        return Ok((0, found + 1));
    }
    // Never begin inside a line: half of a secret would not be recognised.
    Ok((after_next_line_end(file, floor, length)?, found))
}

/// The place after the first line end at or after `from`; `length` if there is none.
fn after_next_line_end(file: &File, from: u64, length: u64) -> io::Result<u64> {
    let mut block = vec![0; BLOCK];
    let mut at = from;
    while at < length {
        let read = file.read_at(&mut block, at)?;
        if read == 0 {
            break;
        }
        if let Some(index) = block[..read].iter().position(|b| *b == b'\n') {
            return Ok(at + index as u64 + 1);
        }
        at += read as u64;
    }
    Ok(length)
}
