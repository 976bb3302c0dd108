//! One app's log: where its two files are, and how its end is read.

use super::create_private;
use super::lines::Lines;
use super::redact::Redactor;
use super::rotating::{Position, Read, Rotating};
use crate::data_dir::gone_is_fine;
use std::fs::{self, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// How far back from the end the last lines are looked for, in bytes.
const FARTHEST: u64 = 2 * 1024 * 1024;

/// Bytes of it that are read at once.
const PIECE: usize = 64 * 1024;

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
        let (mut place, mut inside_line) = log.back(FARTHEST)?;
        let (mut bytes, mut piece) = (Vec::new(), vec![0; PIECE]);
        // Twice as often as it needs: who writes faster than that is read on from there. Lines
        // are made afterwards, which takes long enough to be overtaken.
        for _ in 0..2 * FARTHEST / PIECE as u64 {
            match log.read(&mut place, &mut piece)? {
                Read::Bytes(read) => bytes.extend_from_slice(&piece[..read]),
                Read::Nothing => break,
                Read::Lost { inside_line: cut } => (bytes, inside_line) = (Vec::new(), cut),
            }
        }
        let mut last = Lines::new(false);
        last.push(&bytes);
        last.keep_last(lines, inside_line, redactor);
        Ok((last, log, place))
    }

    /// Deletes the files, by which followers see that nothing more will come.
    pub(super) fn remove(&self) -> io::Result<()> {
        self.paths().iter().try_for_each(|path| gone_is_fine(fs::remove_file(path)))
    }
}
