//! One app's log: where its two files are, and how its end is read.

use super::create_private;
use super::lines::Lines;
use super::pages::{Edge, Piece};
use super::redact::Redactor;
use super::rotating::{Position, Rotating};
use crate::data_dir::gone_is_fine;
use std::fs::{self, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// What followers keep out of what they read.
pub(super) type Hidden = Arc<Mutex<Redactor>>;

/// The log of one app.
pub(super) struct AppLog {
    pub path: PathBuf,
    /// Bytes of each of its files.
    pub half: u64,
}

impl AppLog {
    /// Its files.
    pub(super) fn paths(&self) -> [PathBuf; 2] {
        [self.path.clone(), self.path.with_extension("log.1")]
    }

    /// Opens its files, and makes them if need be.
    pub(super) fn open(&self) -> io::Result<Rotating> {
        let open = |path: &Path| create_private(OpenOptions::new().read(true).append(true), path);
        let [first, second] = self.paths();
        Rotating::new([open(&first)?, open(&second)?], self.half)
    }

    /// The last `lines` lines, and where and how to read on behind them. Of a line that begins
    /// too far back only the end is there, and of that nothing in which half of a secret
    /// could stand.
    pub(super) fn last(
        &self,
        lines: usize,
        redactor: &Redactor,
    ) -> io::Result<(Lines, Rotating, Position)> {
        let log = self.open()?;
        let end = log.end()?;
        let piece = Piece::of_app(&log, Edge::Before(Some(end)))?;
        let mut last = Lines::new(false);
        last.push(&piece.bytes);
        last.keep_last(lines, piece.inside_line, redactor);
        Ok((last, log, end))
    }

    /// Deletes the files, by which followers see that nothing more will come.
    pub(super) fn remove(&self) -> io::Result<()> {
        self.paths().iter().try_for_each(|path| gone_is_fine(fs::remove_file(path)))
    }
}
