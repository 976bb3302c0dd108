//! One app's log: where its two files are, and who follows it.

use super::clean::Cleaner;
use super::create_private;
use super::lines::Lines;
use super::redact::Redactor;
use super::rotating::{Position, Rotating};
use crate::sync::lock;
use std::fs::{self, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};

/// How far back from the end the last lines are looked for, in bytes.
const FARTHEST: u64 = 2 * 1024 * 1024;

/// What a follower keeps out of what it reads.
pub(super) type Hidden = Arc<Mutex<Redactor>>;

/// The log of one app, shared by all who read and follow it.
pub(super) struct AppLog {
    path: PathBuf,
    half: u64,
    followers: Mutex<Vec<Weak<Mutex<Redactor>>>>,
    removed: AtomicBool,
}

/// The last lines of a log, and where and how to read on behind them.
pub(super) struct Last {
    pub log: Rotating,
    pub cleaner: Cleaner,
    pub lines: Lines,
    pub end: Position,
}

impl AppLog {
    pub(super) fn new(path: PathBuf, half: u64) -> Self {
        Self { path, half, followers: Mutex::default(), removed: AtomicBool::new(false) }
    }

    /// Its files.
    pub(super) fn paths(&self) -> [PathBuf; 2] {
        [self.path.clone(), self.path.with_extension("log.1")]
    }

    /// Opens its files, and makes them if need be.
    pub(super) fn open(&self) -> io::Result<Rotating> {
        let open = |path: &Path| create_private(OpenOptions::new().read(true).append(true), path);
        let [first, second] = self.paths();
        let (first, second) = (open(&first)?, open(&second)?);
        let same = first.try_clone()?;
        let log = Rotating::new([first, second], self.half)?;
        log.begin(&same)?;
        Ok(log)
    }

    /// What a new follower keeps out: nothing until [`AppLog::hide_also`].
    pub(super) fn follower(&self) -> Hidden {
        let hidden = Hidden::default();
        let mut followers = lock(&self.followers);
        followers.retain(|follower| follower.strong_count() > 0);
        followers.push(Arc::downgrade(&hidden));
        hidden
    }

    /// Keeps more out of what those read who follow it already.
    pub(super) fn hide_also(&self, more: &Redactor) {
        for hidden in lock(&self.followers).iter().filter_map(Weak::upgrade) {
            let mut hidden = lock(&hidden);
            *hidden = hidden.and(more);
        }
    }

    pub(super) fn is_removed(&self) -> bool {
        self.removed.load(Ordering::Acquire)
    }

    /// The last `lines` lines. Of a line that begins too far back only the end is there,
    /// and of that nothing in which half of a secret could stand.
    pub(super) fn last(&self, lines: usize, redactor: &Redactor) -> io::Result<Last> {
        let log = self.open()?;
        let tail = log.tail(if lines == 0 { 0 } else { FARTHEST })?;
        let (mut cleaner, mut waiting) = (Cleaner::new(), Lines::default());
        cleaner.push(&tail.bytes, waiting.buffer());
        waiting.keep_last(lines, tail.inside_line, redactor);
        Ok(Last { log, cleaner, lines: waiting, end: tail.end })
    }

    /// Deletes the files and sends the followers away.
    pub(super) fn remove(&self) -> io::Result<()> {
        self.removed.store(true, Ordering::Release);
        for path in self.paths() {
            match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}
