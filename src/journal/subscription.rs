//! Follows a log from a place in its file: what is there, what comes, and the end.
//!
//! A subscription reads the file at the pace of its reader, so a slow reader
//! costs a file offset and one buffer, never a queue.

use super::app_log::{AppLog, Rotation};
use super::clean::Cleaner;
use super::lines::Lines;
use super::redact::Redactor;
use super::writer::Channel;
use crate::sync::Bell;
use log::warn;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::inotify;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// Bytes read from the file at once.
const CHUNK: usize = 16 * 1024;

/// What a follower is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// One line, clean and redacted, without its line end.
    Line(String),
    /// Nothing more will come. Inside, what [`super::Writer::finish`] was given, if the
    /// log ended while this process was running.
    End(Option<String>),
}

/// One follower's place in a log.
pub struct Subscription {
    file: File,
    offset: u64,
    /// The older half of a rotated log, read before `file` to its end.
    older: Option<(File, u64)>,
    cleaner: Cleaner,
    lines: Lines,
    redactor: Redactor,
    source: Source,
    over: bool,
}

enum Source {
    Deploy { channel: Option<Arc<Channel>>, wake: Arc<Bell> },
    App { log: Arc<AppLog>, rotation: Rotation, wake: Watch },
}

/// What tells that an app wrote something.
enum Watch {
    Inotify(OwnedFd),
    /// The system has no inotify instance left: the reader's own clock must do.
    Nothing(Bell),
}

impl Subscription {
    pub(super) fn deploy(file: File, channel: Option<Arc<Channel>>) -> io::Result<Self> {
        let wake = match &channel {
            Some(channel) => channel.listen()?,
            None => Arc::new(Bell::new()?),
        };
        // The writer has redacted already.
        Ok(Self::new(file, 0, None, Redactor::default(), Source::Deploy { channel, wake }))
    }

    pub(super) fn app(log: Arc<AppLog>, last_lines: usize, redactor: Redactor) -> io::Result<Self> {
        // Watching begins before reading, so that nothing falls between the two.
        let wake = watch(&log)?;
        let place = log.place_of_last(last_lines)?;
        let source = Source::App { log, rotation: place.rotation, wake };
        Ok(Self::new(place.file, place.offset, place.older, redactor, source))
    }

    fn new(
        file: File,
        offset: u64,
        older: Option<(File, u64)>,
        redactor: Redactor,
        source: Source,
    ) -> Self {
        let (cleaner, lines) = (Cleaner::new(), Lines::default());
        Self { file, offset, older, cleaner, lines, redactor, source, over: false }
    }

    /// Readable when there may be more to read. After a wait on it, call
    /// [`Self::read`] until it returns nothing. Where the system cannot watch
    /// files it stays silent, so read once a second as well.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        match &self.source {
            Source::Deploy { wake, .. } => wake.as_fd(),
            Source::App { wake: Watch::Inotify(fd), .. } => fd.as_fd(),
            Source::App { wake: Watch::Nothing(bell), .. } => bell.as_fd(),
        }
    }

    /// What has come since the last call, in order. Stops after the line that
    /// reaches `max_bytes`; an empty answer means that there is no more for now.
    pub fn read(&mut self, max_bytes: usize) -> Vec<Event> {
        let mut events = Vec::new();
        if self.over {
            return events;
        }
        self.forget_wakes();
        // Asked before reading: what was written before the end is then read too.
        let end = self.end();
        let redactor = match &self.source {
            Source::App { log, .. } => self.redactor.and(&log.redactor()),
            Source::Deploy { .. } => self.redactor.clone(),
        };
        let mut taken = 0;
        while taken < max_bytes {
            if let Some(line) = self.lines.next(&redactor) {
                // The three bytes are what an empty line costs in a message.
                taken += line.len() + 3;
                events.push(Event::Line(line));
                continue;
            }
            match self.fill() {
                Ok(true) => {}
                Ok(false) => {
                    let Some(end) = &end else { break };
                    self.cleaner.finish(self.lines.buffer());
                    if let Some(line) = self.lines.last(&redactor) {
                        taken += line.len() + 3;
                        events.push(Event::Line(line));
                        continue;
                    }
                    events.push(Event::End(end.clone()));
                    self.over = true;
                    break;
                }
                Err(error) => {
                    warn!("cannot read a log: {error}; its followers are sent away");
                    events.push(Event::End(None));
                    self.over = true;
                    break;
                }
            }
        }
        events
    }

    fn end(&self) -> Option<Option<String>> {
        match &self.source {
            Source::Deploy { channel: Some(channel), .. } => channel.ended(),
            Source::Deploy { channel: None, .. } => Some(None),
            Source::App { log, .. } => log.is_removed().then_some(None),
        }
    }

    /// Reads the next bytes of the file; false at its present end.
    fn fill(&mut self) -> io::Result<bool> {
        // On the heap: connections have small stacks.
        let mut chunk = vec![0; CHUNK];
        if let Some((older, offset)) = &mut self.older {
            let read = older.read_at(&mut chunk, *offset)?;
            *offset += read as u64;
            if read == 0 {
                self.older = None;
            } else {
                self.cleaner.push(&chunk[..read], self.lines.buffer());
            }
            return Ok(true);
        }
        if let Source::App { log, rotation, .. } = &mut self.source {
            // Held while reading: a rotation happens before or after, not within.
            let held = log.hold();
            if *rotation != *held {
                // The rest of what was moved away is read before the new start.
                self.older = held.moved_since(*rotation, self.offset, log);
                self.offset = 0;
                *rotation = *held;
                return Ok(true);
            }
            if self.file.metadata()?.len() < self.offset {
                // Emptied by somebody else, an operator perhaps.
                self.offset = 0;
                self.lines.clear();
            }
        }
        let read = self.file.read_at(&mut chunk, self.offset)?;
        self.offset += read as u64;
        self.cleaner.push(&chunk[..read], self.lines.buffer());
        Ok(read > 0)
    }

    fn forget_wakes(&self) {
        match &self.source {
            Source::Deploy { wake, .. } => wake.silence(),
            Source::App { wake: Watch::Inotify(fd), .. } => {
                while rustix::io::read(fd, &mut [0u8; 1024]).is_ok_and(|n| n > 0) {}
            }
            Source::App { .. } => {}
        }
    }
}

fn watch(log: &AppLog) -> io::Result<Watch> {
    let flags = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
    // ATTRIB tells of a removed file: its number of links changes.
    let what = inotify::WatchFlags::MODIFY | inotify::WatchFlags::ATTRIB;
    // An app that has not run yet has no file, and a file that is not there cannot be watched.
    log.append()?;
    let watched =
        inotify::init(flags).and_then(|fd| inotify::add_watch(&fd, log.path(), what).map(|_| fd));
    match watched {
        Ok(fd) => Ok(Watch::Inotify(fd)),
        Err(error) => {
            warn!("cannot watch an app's log ({error}); raise fs.inotify.max_user_instances");
            Ok(Watch::Nothing(Bell::new()?))
        }
    }
}
