//! Writes the log of a deploy or a run, line by line.

use super::LogOf;
use super::lines::Lines;
use super::redact::Redactor;
use crate::model::Utc;
use crate::sync::lock;
use log::warn;
use std::collections::HashSet;
use std::fs::File;
use std::io::Write;
use std::sync::{Arc, Mutex};

/// Bytes that such a log may have; a build that prints more is broken.
pub const MAX_DEPLOY_LOG: u64 = 10 * 1024 * 1024;

/// The same of a run, of which many more are kept.
pub const MAX_RUN_LOG: u64 = 1024 * 1024;

/// The logs that are being written.
pub(super) type Running = Arc<Mutex<HashSet<LogOf>>>;

/// A log that is being written. Dropping it ends the log.
pub struct Writer {
    of: LogOf,
    running: Running,
    output: Mutex<Output>,
}

struct Output {
    file: File,
    most: u64,
    written: u64,
    lines: Lines,
    redactor: Redactor,
    /// Nothing more is written: the log is full or the disk is.
    closed: bool,
}

impl Writer {
    pub(super) fn new(of: LogOf, running: Running, file: File, redactor: Redactor) -> Self {
        let lines = Lines::new(false);
        let most = match of {
            LogOf::Deploy(_) => MAX_DEPLOY_LOG,
            LogOf::Run(_) => MAX_RUN_LOG,
        };
        let output = Output { file, most, written: 0, lines, redactor, closed: false };
        Self { of, running, output: Mutex::new(output) }
    }

    /// Appends what a program has written, as lines: cleaned of control characters, redacted,
    /// cut after [`MAX_LINE`](super::MAX_LINE) bytes. An empty piece is the end of its output.
    /// Past [`MAX_DEPLOY_LOG`] or [`MAX_RUN_LOG`] nothing more is kept, and the log says so. Each line that this
    /// has completed is told.
    pub fn output(&self, piece: &[u8], each: &mut dyn FnMut(&str)) {
        let mut output = lock(&self.output);
        output.lines.push(piece);
        output.write(if piece.is_empty() { Lines::last } else { Lines::next }, each);
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
        lock(&self.running).remove(&self.of);
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

    fn append(&mut self, line: &str) {
        if self.closed {
            return;
        }
        let full =
            format!("[this log has reached {} MiB; what follows is not kept]", self.most >> 20);
        let room = self.most - full.len() as u64 - 1;
        self.closed = self.written + line.len() as u64 + 1 > room;
        let line = if self.closed { &full } else { line };
        if let Err(error) = self.file.write_all(format!("{line}\n").as_bytes()) {
            warn!("cannot write a log: {error}; the rest of it is not kept");
            self.closed = true;
        }
        self.written += line.len() as u64 + 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Writer {
        /// Appends a line as a program writes it.
        pub fn line(&self, text: &str) {
            self.output(format!("{text}\n").as_bytes(), &mut |_| {});
        }
    }
}
