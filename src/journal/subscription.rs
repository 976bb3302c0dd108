//! Follows a log from a place in its file: what is there, what comes, and the end.
//!
//! A subscription reads the file at the pace of its reader, so a slow reader
//! costs a file offset and one buffer, never a queue.

use super::app_log::{AppLog, Hidden, Last};
use super::clean::Cleaner;
use super::lines::Lines;
use super::redact::Redactor;
use super::rotating::{Position, Read, Rotating};
use super::writer::{Channel, LogEnd};
use crate::sync::{EventFd, lock};
use log::warn;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::inotify;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// Bytes read from the file at once.
const CHUNK: usize = 16 * 1024;

/// The line in place of what an app wrote faster than it was read.
const MISSED: &str = "[better-paas] some output is left out here; it came too fast to be followed";

/// What a follower is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// One line, clean and redacted, without its line end.
    Line(String),
    /// Nothing more will come.
    End(LogEnd),
}

/// One follower's place in a log.
pub struct Subscription {
    cleaner: Cleaner,
    lines: Lines,
    source: Source,
    over: bool,
}

enum Source {
    Deploy { file: File, offset: u64, channel: Option<Arc<Channel>>, wake: Arc<EventFd> },
    App(AppSource),
}

/// A place in an app's log.
struct AppSource {
    app: Arc<AppLog>,
    log: Rotating,
    place: Position,
    hidden: Hidden,
    wake: Watch,
    /// The end of a line whose beginning was lost, and which may hold half of a secret.
    skips: bool,
}

/// What tells that an app wrote something.
enum Watch {
    Inotify(OwnedFd),
    /// The system has no inotify instance left: the reader's own clock must do.
    Nothing(EventFd),
}

impl Subscription {
    pub(super) fn deploy(file: File, channel: Option<Arc<Channel>>) -> io::Result<Self> {
        let wake = match &channel {
            Some(channel) => channel.listen()?,
            None => Arc::new(EventFd::new()?),
        };
        let (cleaner, lines) = (Cleaner::new(), Lines::default());
        let source = Source::Deploy { file, offset: 0, channel, wake };
        Ok(Self { cleaner, lines, source, over: false })
    }

    pub(super) fn app(
        app: Arc<AppLog>,
        last: usize,
        redactor: impl FnOnce() -> io::Result<Redactor>,
    ) -> io::Result<Self> {
        // Watching, and hearing of new secrets, begins before reading, so that nothing falls
        // between the two.
        let wake = watch(&app)?;
        let hidden = app.follower();
        let redactor = redactor()?;
        app.hide_also(&redactor);
        let Last { log, cleaner, lines, end } = app.last(last, &redactor)?;
        let source = AppSource { app, log, place: end, hidden, wake, skips: false };
        Ok(Self { cleaner, lines, source: Source::App(source), over: false })
    }

    /// Readable when there may be more to read. After a wait on it, call
    /// [`Self::read`] until it returns nothing. Where the system cannot watch
    /// files it stays silent, so read once a second as well.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        match &self.source {
            Source::Deploy { wake, .. } => wake.as_fd(),
            Source::App(AppSource { wake: Watch::Inotify(fd), .. }) => fd.as_fd(),
            Source::App(AppSource { wake: Watch::Nothing(wake_up), .. }) => wake_up.as_fd(),
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
            Source::App(app) => lock(&app.hidden).clone(),
            // The writer has redacted already.
            Source::Deploy { .. } => Redactor::default(),
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
                    events.push(Event::End(LogEnd::Unsaid));
                    self.over = true;
                    break;
                }
            }
        }
        events
    }

    fn end(&self) -> Option<LogEnd> {
        match &self.source {
            Source::Deploy { channel: Some(channel), .. } => channel.ended(),
            Source::Deploy { channel: None, .. } => Some(LogEnd::Unsaid),
            Source::App(app) => app.app.is_removed().then_some(LogEnd::Unsaid),
        }
    }

    /// Reads the next bytes of the log; false at its present end.
    fn fill(&mut self) -> io::Result<bool> {
        // On the heap: connections have small stacks.
        let mut chunk = vec![0; CHUNK];
        match &mut self.source {
            Source::Deploy { file, offset, .. } => {
                let read = file.read_at(&mut chunk, *offset)?;
                *offset += read as u64;
                self.cleaner.push(&chunk[..read], self.lines.buffer());
                Ok(read > 0)
            }
            Source::App(app) => match app.log.read(&mut app.place, &mut chunk)? {
                Read::Nothing => Ok(false),
                Read::Bytes(read) => {
                    self.cleaner.push(app.wanted(&chunk[..read]), self.lines.buffer());
                    Ok(true)
                }
                Read::Lost { inside_line } => {
                    (self.cleaner, app.skips) = (Cleaner::new(), inside_line);
                    self.lines.clear();
                    self.lines.buffer().push_str(MISSED);
                    self.lines.buffer().push('\n');
                    Ok(true)
                }
            },
        }
    }

    fn forget_wakes(&self) {
        match &self.source {
            Source::Deploy { wake, .. } => wake.clear(),
            Source::App(AppSource { wake: Watch::Inotify(fd), .. }) => {
                while rustix::io::read(fd, &mut [0u8; 1024]).is_ok_and(|n| n > 0) {}
            }
            Source::App(_) => {}
        }
    }
}

impl AppSource {
    /// What was read, without the end of a line whose beginning was lost.
    fn wanted<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        if !self.skips {
            return bytes;
        }
        let Some(end) = bytes.iter().position(|b| *b == b'\n') else { return &[] };
        self.skips = false;
        &bytes[end + 1..]
    }
}

fn watch(log: &AppLog) -> io::Result<Watch> {
    let flags = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
    // ATTRIB tells of a removed file: its number of links changes.
    let what = inotify::WatchFlags::MODIFY | inotify::WatchFlags::ATTRIB;
    // An app that has not run yet has no file, and a file that is not there cannot be watched.
    log.open()?;
    let watched = inotify::init(flags).and_then(|fd| {
        for path in log.paths() {
            inotify::add_watch(&fd, &path, what)?;
        }
        Ok(fd)
    });
    match watched {
        Ok(fd) => Ok(Watch::Inotify(fd)),
        Err(error) => {
            warn!("cannot watch an app's log ({error}); raise fs.inotify.max_user_instances");
            Ok(Watch::Nothing(EventFd::new()?))
        }
    }
}
