//! Writes a deploy's log, line by line, and wakes those who follow it.

use super::Shared;
use super::clean::Cleaner;
use super::lines::{Lines, MAX_LINE};
use super::redact::Redactor;
use crate::model::{DeployId, Utc};
use crate::sync::{EventFd, lock};
use log::warn;
use std::fs::File;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, Weak};

/// Bytes that one deploy's log may have; a build that prints more is broken.
pub const MAX_DEPLOY_LOG: u64 = 10 * 1024 * 1024;

/// The last line of a log that reached [`MAX_DEPLOY_LOG`].
const FULL: &str = "[this log has reached 10 MiB; what follows is not kept]";

/// A line this long was probably cut by the code that read it from a process, so its
/// rest is awaited: a secret that the cut went through is still found. Three
/// bytes less than the cut, because a cut goes between characters.
const PROBABLY_CUT: usize = MAX_LINE - 3;

/// Whether a line from a process is probably a piece of a longer one, whose rest comes as
/// the next.
#[must_use]
pub const fn was_cut(line: &str) -> bool {
    line.len() >= PROBABLY_CUT
}

/// The running log of one deploy. Dropping it ends the log as [`Writer::finish`]
/// does, without a result.
pub struct Writer {
    deploy: DeployId,
    shared: Arc<Shared>,
    channel: Arc<Channel>,
    output: Mutex<Output>,
}

struct Output {
    file: File,
    written: u64,
    cleaner: Cleaner,
    lines: Lines,
    redactor: Redactor,
    /// Nothing more is written: the log is full or the disk is.
    closed: bool,
}

impl Writer {
    pub(super) fn new(
        deploy: DeployId,
        shared: Arc<Shared>,
        channel: Arc<Channel>,
        file: File,
        redactor: Redactor,
    ) -> Self {
        let output = Output {
            file,
            written: 0,
            cleaner: Cleaner::new(),
            lines: Lines::default(),
            redactor,
            closed: false,
        };
        Self { deploy, shared, channel, output: Mutex::new(output) }
    }

    /// Appends a line: cleaned of control characters, redacted, cut after
    /// [`MAX_LINE`] bytes. Line ends inside it make several lines. Past
    /// [`MAX_DEPLOY_LOG`] nothing more is kept, and the log says so.
    pub fn line(&self, text: &str) {
        let mut output = lock(&self.output);
        output.push(text);
        if !was_cut(text) {
            output.push("\n");
        }
        if output.write(false) {
            self.channel.wake();
        }
    }

    /// Appends a line of the platform's own, with the time, as [`Writer::line`] does.
    pub fn note(&self, text: &str) {
        self.line(&format!("{} {text}", Utc::now()));
    }

    /// Ends the log. `end` is told to those who follow it now; it is not stored.
    pub fn finish(self, end: &str) {
        self.end(LogEnd::Said(end.to_owned()));
    }

    fn end(&self, end: LogEnd) {
        let mut output = lock(&self.output);
        output.write(true);
        drop(output);
        lock(&self.shared.running).remove(&self.deploy);
        self.channel.end(end);
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if self.channel.ended().is_none() {
            self.end(LogEnd::Unsaid);
        }
    }
}

impl Output {
    fn push(&mut self, text: &str) {
        self.cleaner.push(text.as_bytes(), self.lines.buffer());
    }

    /// Writes the lines that are complete, each with one write; all that is left
    /// when nothing more comes. Says whether there was something to read.
    fn write(&mut self, nothing_more: bool) -> bool {
        let mut wrote = false;
        loop {
            let next = if nothing_more {
                self.lines.last(&self.redactor)
            } else {
                self.lines.next(&self.redactor)
            };
            let Some(mut line) = next else { return wrote };
            if self.closed {
                continue;
            }
            let room = MAX_DEPLOY_LOG - FULL.len() as u64 - 1;
            if self.written + line.len() as u64 + 1 > room {
                FULL.clone_into(&mut line);
                self.closed = true;
            }
            line.push('\n');
            if let Err(error) = self.file.write_all(line.as_bytes()) {
                warn!("cannot write a deploy's log: {error}; the rest of it is not kept");
                self.closed = true;
            }
            self.written += line.len() as u64;
            wrote = true;
        }
    }
}

/// How a log has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogEnd {
    /// With what [`Writer::finish`] was given.
    Said(String),
    /// Without a word: its writer went away, or ended before this server; its app was removed;
    /// or it cannot be read.
    Unsaid,
}

/// What a writer and those who follow it share.
#[derive(Default)]
pub(super) struct Channel {
    state: Mutex<ChannelState>,
}

#[derive(Default)]
struct ChannelState {
    ended: Option<LogEnd>,
    listeners: Vec<Weak<EventFd>>,
}

impl Channel {
    /// What is signalled when there is more to read.
    pub(super) fn listen(&self) -> io::Result<Arc<EventFd>> {
        let wake_up = Arc::new(EventFd::new()?);
        let mut state = lock(&self.state);
        state.listeners.retain(|l| l.strong_count() > 0);
        state.listeners.push(Arc::downgrade(&wake_up));
        Ok(wake_up)
    }

    pub(super) fn ended(&self) -> Option<LogEnd> {
        lock(&self.state).ended.clone()
    }

    fn wake(&self) {
        lock(&self.state)
            .listeners
            .iter()
            .filter_map(Weak::upgrade)
            .for_each(|wake_up| wake_up.signal());
    }

    fn end(&self, end: LogEnd) {
        lock(&self.state).ended.get_or_insert(end);
        self.wake();
    }
}
