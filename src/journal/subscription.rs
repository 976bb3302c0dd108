//! Follows a log from a place in its file: what is there, what comes, and the end.
//!
//! A subscription reads the file at the pace of its reader, so a slow reader
//! costs a file offset and one buffer, never a queue.

use super::LogOf;
use super::app_log::{AppLog, Hidden};
use super::lines::{Lines, MISSED};
use super::redact::Redactor;
use super::rotating::{Position, Read, Rotating};
use super::writer::Running;
use crate::sync::lock;
use log::warn;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::inotify;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

/// Bytes read from the file at once.
const CHUNK: usize = 16 * 1024;

/// One follower's place in a log.
pub struct Subscription {
    lines: Lines,
    source: Source,
    /// Whether what was read so far ends with a line.
    at_line_end: bool,
    /// What tells that something was written; `None` when the system has no inotify instance
    /// left.
    wake: Option<OwnedFd>,
    over: bool,
}

/// From where on an app's log is followed.
#[derive(Debug, Clone, Copy)]
pub enum Begin {
    /// So many lines before its end.
    Last(usize),
    /// This place.
    At(Position),
}

enum Source {
    Ending { of: LogOf, running: Running, file: File, offset: u64 },
    App { log: Rotating, place: Position, hidden: Hidden },
}

impl Subscription {
    pub(super) fn ending(
        of: LogOf,
        running: Running,
        path: PathBuf,
        file: File,
        from: Position,
    ) -> Self {
        let wake = watch(&[path]);
        let (Position { offset, .. }, inside_line) = from.resumed();
        let source = Source::Ending { of, running, file, offset };
        Self { lines: Lines::new(inside_line), source, at_line_end: false, wake, over: false }
    }

    pub(super) fn app(
        app: &AppLog,
        begin: Begin,
        hidden: Hidden,
        redactor: impl FnOnce() -> io::Result<Redactor>,
    ) -> io::Result<Self> {
        // An app that has not run yet has no file, and a file that is not there cannot be watched.
        app.open()?;
        // Watching, and hearing of new secrets, begins before reading, so that nothing falls
        // between the two.
        let wake = watch(&app.paths());
        let redactor = redactor()?;
        let mut known = lock(&hidden);
        *known = known.and(&redactor);
        drop(known);
        let (lines, log, place) = match begin {
            Begin::Last(lines) => app.last(lines, &redactor)?,
            Begin::At(place) => {
                let (place, inside_line) = place.resumed();
                (Lines::new(inside_line), app.open()?, place)
            }
        };
        let source = Source::App { log, place, hidden };
        Ok(Self { lines, source, at_line_end: false, wake, over: false })
    }

    /// The place behind all that was read, from which another can go on. `None` inside of a line
    /// and while lines wait to be read.
    pub fn place(&self) -> Option<Position> {
        let place = match &self.source {
            Source::Ending { offset, .. } => Position { number: 0, offset: *offset },
            Source::App { place, .. } => *place,
        };
        Some(place).filter(|_| self.at_line_end && self.lines.is_empty())
    }

    /// Readable when there may be more to read. After a wait on it, call
    /// [`Self::read`] until it returns nothing. Where the system cannot watch
    /// files there is none, so read once a second as well.
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.wake.as_ref().map(AsFd::as_fd)
    }

    /// Whether nothing more will come: what there was has been read.
    pub fn is_over(&self) -> bool {
        self.over
    }

    /// The lines that have come since the last call, in order, clean and redacted, without their
    /// line ends. Stops after the line that reaches `max_bytes`; an empty answer means that there
    /// is no more for now.
    pub fn read(&mut self, max_bytes: usize) -> Vec<String> {
        let mut found = Vec::new();
        if let Some(wake) = &self.wake {
            while rustix::io::read(wake, &mut [0u8; 1024]).is_ok_and(|n| n > 0) {}
        }
        // Asked before reading: what was written before the end is then read too.
        let (has_ended, redactor) = match &self.source {
            // The writer has redacted already.
            Source::Ending { of, running, .. } => {
                (!lock(running).contains(of), Redactor::default())
            }
            Source::App { log, hidden, .. } => (log.is_removed(), lock(hidden).clone()),
        };
        let mut taken = 0;
        while taken < max_bytes && !self.over {
            let line = match self.lines.next(&redactor) {
                Some(line) => Some(line),
                None => match self.fill() {
                    Ok(true) => continue,
                    Ok(false) if !has_ended => break,
                    Ok(false) => self.lines.last(&redactor),
                    Err(error) => {
                        warn!("cannot read a log: {error}; its followers are sent away");
                        None
                    }
                },
            };
            self.over = line.is_none();
            // The three bytes are what an empty line costs in a message.
            taken += line.as_ref().map_or(0, String::len) + 3;
            found.extend(line);
        }
        found
    }

    /// Reads the next bytes of the log; false at its present end.
    fn fill(&mut self) -> io::Result<bool> {
        // On the heap: connections have small stacks.
        let mut chunk = vec![0; CHUNK];
        let (read, offset) = match &mut self.source {
            Source::Ending { file, offset, .. } => {
                let read = file.read_at(&mut chunk, *offset)?;
                *offset += read as u64;
                (read, offset)
            }
            Source::App { log, place, .. } => match log.read(place, &mut chunk)? {
                Read::Nothing => return Ok(false),
                Read::Bytes(read) => (read, &mut place.offset),
                Read::Lost { inside_line } => {
                    self.lines = Lines::new(inside_line);
                    self.lines.note(MISSED);
                    return Ok(true);
                }
            },
        };
        if read > 0 {
            // Up to the last line end, where there is one: that is a place to go on from.
            let end = chunk[..read].iter().rposition(|byte| *byte == b'\n').map(|at| at + 1);
            let taken = end.unwrap_or(read);
            *offset -= (read - taken) as u64;
            self.at_line_end = end.is_some();
            self.lines.push(&chunk[..taken]);
        }
        Ok(read > 0)
    }
}

fn watch(paths: &[PathBuf]) -> Option<OwnedFd> {
    let flags = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
    // ATTRIB tells of a removed file: its number of links changes; CLOSE_WRITE of a log's end.
    let what = inotify::WatchFlags::MODIFY
        | inotify::WatchFlags::ATTRIB
        | inotify::WatchFlags::CLOSE_WRITE;
    let watched = inotify::init(flags).and_then(|fd| {
        paths.iter().try_for_each(|path| inotify::add_watch(&fd, path, what).map(|_| ()))?;
        Ok(fd)
    });
    let why = |error| warn!("cannot watch a log ({error}); raise fs.inotify.max_user_instances");
    watched.map_err(why).ok()
}
