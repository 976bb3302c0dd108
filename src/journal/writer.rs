//! Writes a deploy's log, line by line.

use super::lines::Lines;
use super::redact::Redactor;
use crate::model::{DeployId, Utc};
use crate::sync::lock;
use log::warn;
use std::collections::HashSet;
use std::fs::File;
use std::io::Write;
use std::sync::{Arc, Mutex};

/// Bytes that one deploy's log may have; a build that prints more is broken.
pub const MAX_DEPLOY_LOG: u64 = 10 * 1024 * 1024;

/// The last line of a log that reached [`MAX_DEPLOY_LOG`].
const FULL: &str = "[this log has reached 10 MiB; what follows is not kept]";

/// The deploys whose logs are being written.
pub(super) type Running = Arc<Mutex<HashSet<DeployId>>>;

/// The running log of one deploy. Dropping it ends the log.
pub struct Writer {
    deploy: DeployId,
    running: Running,
    output: Mutex<Output>,
}

struct Output {
    file: File,
    written: u64,
    lines: Lines,
    redactor: Redactor,
    /// Nothing more is written: the log is full or the disk is.
    closed: bool,
}

impl Writer {
    pub(super) fn new(deploy: DeployId, running: Running, file: File, redactor: Redactor) -> Self {
        let lines = Lines::new(false);
        let output = Output { file, written: 0, lines, redactor, closed: false };
        Self { deploy, running, output: Mutex::new(output) }
    }

    /// Appends what a program has written, as lines: cleaned of control characters, redacted,
    /// cut after [`MAX_LINE`](super::MAX_LINE) bytes. An empty piece is the end of its output.
    /// Past [`MAX_DEPLOY_LOG`] nothing more is kept, and the log says so. Each line that this
    /// has completed is told.
    pub fn output(&self, piece: &[u8], each: &mut dyn FnMut(&str)) {
        let mut output = lock(&self.output);
        output.lines.push(piece);
        output.write(if piece.is_empty() { Lines::last } else { Lines::next }, each);
    }

    #[cfg(test)]
    pub(crate) fn line(&self, text: &str) {
        self.output(format!("{text}\n").as_bytes(), &mut |_| {});
    }

    /// Appends a line of the platform's own, with the time, as [`Writer::output`] does.
    pub fn note(&self, text: &str) {
        self.output(format!("{} {text}\n", Utc::now()).as_bytes(), &mut |_| {});
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        lock(&self.output).write(Lines::last, &mut |_| {});
        // Those who follow it are woken when the file is closed, which comes after this.
        lock(&self.running).remove(&self.deploy);
    }
}

impl Output {
    /// Writes the lines that there are, each with one write.
    fn write(
        &mut self,
        next: fn(&mut Lines, &Redactor) -> Option<String>,
        each: &mut dyn FnMut(&str),
    ) {
        while let Some(line) = next(&mut self.lines, &self.redactor) {
            self.append(&line);
            each(&line);
        }
    }

    fn append(&mut self, mut line: &str) {
        if self.closed {
            return;
        }
        let room = MAX_DEPLOY_LOG - FULL.len() as u64 - 1;
        if self.written + line.len() as u64 + 1 > room {
            line = FULL;
            self.closed = true;
        }
        if let Err(error) = self.file.write_all(format!("{line}\n").as_bytes()) {
            warn!("cannot write a deploy's log: {error}; the rest of it is not kept");
            self.closed = true;
        }
        self.written += line.len() as u64 + 1;
    }
}
