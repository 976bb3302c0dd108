//! Writes a deploy's log, line by line.

use super::lines::{Lines, MAX_LINE};
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

    /// Appends a line: cleaned of control characters, redacted, cut after
    /// [`MAX_LINE`] bytes. Line ends inside it make several lines. Past
    /// [`MAX_DEPLOY_LOG`] nothing more is kept, and the log says so.
    pub fn line(&self, text: &str) {
        let mut output = lock(&self.output);
        output.lines.push(text.as_bytes());
        if !was_cut(text) {
            output.lines.push(b"\n");
        }
        output.write(Lines::next);
    }

    /// Appends a line of the platform's own, with the time, as [`Writer::line`] does.
    pub fn note(&self, text: &str) {
        self.line(&format!("{} {text}", Utc::now()));
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        lock(&self.output).write(Lines::last);
        // Those who follow it are woken when the file is closed, which comes after this.
        lock(&self.running).remove(&self.deploy);
    }
}

impl Output {
    /// Writes the lines that there are, each with one write.
    fn write(&mut self, next: fn(&mut Lines, &Redactor) -> Option<String>) {
        while let Some(mut line) = next(&mut self.lines, &self.redactor) {
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
        }
    }
}
