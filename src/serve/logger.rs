//! Log lines on standard error, one each, with the time in UTC.
//!
//! Nothing waits for their reader: a terminal that was stopped, or a connection
//! that hangs behind a pipe, would stop the thread that answers who reads, and with
//! it everybody. Lines that find no room are counted instead.

use crate::model::Utc;
use crate::sync;
use log::{Level, LevelFilter, Log, Metadata, Record};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use std::fmt::Write as _;
use std::io::{Stderr, Write as _, stderr};
use std::sync::Mutex;
use std::time::Duration;

/// How long a line waits for room when the one before it found some: a reader that is
/// only slow loses nothing. One that has stopped costs this once.
const PATIENCE: Duration = Duration::from_millis(200);

/// Bytes that a pipe takes whole once it has room at all (PIPE_BUF, pipe(7)).
const PIECE: usize = 4096;

/// Writes a line, after a word about those that were lost since the last one that was written.
fn take(line: &str, lost: &mut u64) {
    if *lost > 0 {
        let note = format!("{lost} lines of this log are missing here: nobody read them\n");
        if !write(&(begin(Level::Warn) + &note), Duration::ZERO) {
            *lost += 1;
            return;
        }
        *lost = 0;
    }
    if !write(line, PATIENCE) {
        *lost += 1;
    }
}

/// Writes a text unless that takes longer. False when some of it found no room.
fn write(text: &str, patience: Duration) -> bool {
    let err = stderr();
    text.as_bytes().chunks(PIECE).all(|piece| {
        let room = has_room(&err, patience);
        // Nobody is left to tell when standard error is gone.
        let _ = room.then(|| (&err).write_all(piece));
        room
    })
}

/// Whether something can be written at once, or cannot ever.
fn has_room(to: &Stderr, patience: Duration) -> bool {
    let patience = Timespec::try_from(patience).ok();
    loop {
        match poll(&mut [PollFd::new(to, PollFlags::OUT)], patience.as_ref()) {
            Err(Errno::INTR) => {}
            Ok(0) => return false,
            _ => return true,
        }
    }
}

fn begin(level: Level) -> String {
    format!("{} {level:<5} ", Utc::now().rfc_3339())
}

/// The process's one log, and how many lines of it nobody has read since the last one.
struct Lines(Mutex<u64>);

static LINES: Lines = Lines(Mutex::new(0));

impl Log for Lines {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let mut line = begin(record.level());
        // One record is one line: what comes from outside cannot forge another
        // or steer the terminal.
        for c in record.args().to_string().chars() {
            if c.is_control() {
                let _ = write!(line, "{}", c.escape_default());
            } else {
                line.push(c);
            }
        }
        line.push('\n');
        take(&line, &mut sync::lock(&self.0));
    }

    fn flush(&self) {}
}

/// Sends log lines to standard error from now on.
pub(super) fn start() {
    if log::set_logger(&LINES).is_ok() {
        log::set_max_level(LevelFilter::Info);
    }
}
