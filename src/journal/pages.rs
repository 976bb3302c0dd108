//! Pages of a log: some lines before a place or after one, or those of them that hold a text.
//!
//! A reader goes through a log of any length by the places at the edges of its pages, which are
//! ends of lines, and follows it from such a place on.

use super::lines::{Lines, MISSED};
use super::redact::Redactor;
use super::rotating::{Position, Read, Rotating};
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

/// Bytes that are looked at for one page: thousands of usual lines, in a few milliseconds.
const FARTHEST: usize = 2 * 1024 * 1024;

/// Bytes of it that are read at once.
const PIECE: usize = 64 * 1024;

/// Where the lines of a page are.
#[derive(Debug, Clone, Copy)]
pub enum Edge {
    /// Before a place, or before the log's end.
    Before(Option<Position>),
    /// After a place.
    After(Position),
}

/// Which lines of a log are asked for.
#[derive(Debug)]
pub struct Wanted {
    /// Where they are.
    pub edge: Edge,
    /// How many, the nearest to that place.
    pub lines: usize,
    /// What they hold, in any case of its letters.
    pub find: Option<String>,
}

/// Lines of a log in their order, clean and redacted. One that is not complete yet is left out.
#[derive(Debug, Default)]
pub struct Page {
    /// Each with the place behind it.
    pub lines: Vec<(Position, String)>,
    /// The place before the first that was looked at; `None` where the log begins.
    pub from: Option<Position>,
    /// The place behind the last.
    pub at: Position,
}

/// Bytes of a log as they were written.
pub(super) struct Piece {
    pub bytes: Vec<u8>,
    /// May begin inside a line.
    pub inside_line: bool,
    /// Where the bytes from an index on were read, for each filling.
    starts: Vec<(usize, Position)>,
    /// What was asked for had been written over.
    lost: bool,
}

impl Piece {
    /// What there is before or after a place in an app's log.
    pub(super) fn of_app(log: &Rotating, edge: Edge) -> io::Result<Self> {
        let to = if let Edge::Before(Some(to)) = edge { to } else { log.end()? };
        let (mut place, inside_line) = match edge {
            Edge::Before(_) => log.back(to, FARTHEST as u64)?,
            Edge::After(from) => from.resumed(),
        };
        let mut piece =
            Self { bytes: Vec::new(), starts: vec![(0, place)], inside_line, lost: false };
        let mut buffer = vec![0; PIECE];
        while place < to && piece.bytes.len() < FARTHEST {
            match log.read(&mut place, &mut buffer)? {
                Read::Bytes(read) => {
                    let start = Position { offset: place.offset - read as u64, ..place };
                    piece.starts.push((piece.bytes.len(), start));
                    piece.bytes.extend_from_slice(&buffer[..read]);
                    if place.number == to.number {
                        let beyond = place.offset.saturating_sub(to.offset) as usize;
                        piece.bytes.truncate(piece.bytes.len().saturating_sub(beyond));
                    }
                }
                Read::Nothing => break,
                Read::Lost { inside_line } => {
                    let (bytes, starts) = (Vec::new(), vec![(0, place)]);
                    piece = Self { bytes, starts, inside_line, lost: true };
                }
            }
        }
        Ok(piece)
    }

    fn of_file(file: &File, edge: Edge) -> io::Result<Self> {
        let length = file.metadata()?.len();
        let (from, to, inside_line) = match edge {
            Edge::Before(to) => {
                let to = to.map_or(length, |to| to.offset.min(length));
                let from = to.saturating_sub(FARTHEST as u64);
                (from, to, from > 0)
            }
            Edge::After(from) => {
                let (Position { offset, .. }, inside_line) = from.resumed();
                let from = offset.min(length);
                (from, length.min(from + FARTHEST as u64), inside_line)
            }
        };
        let mut bytes = vec![0; usize::try_from(to - from).unwrap_or(0)];
        file.read_exact_at(&mut bytes, from)?;
        let starts = vec![(0, Position { number: 0, offset: from })];
        Ok(Self { bytes, inside_line, starts, lost: false })
    }

    /// The place of a byte; of the first of a filling the end of the one before.
    fn place(&self, at: usize) -> Position {
        let (from, place) =
            self.starts.iter().rfind(|(from, _)| *from < at).unwrap_or(&self.starts[0]);
        Position { offset: place.offset + (at - from) as u64, ..*place }
    }

    /// Where the first whole line begins, and where those begin and end that are asked for.
    fn whole_lines(&self, edge: Edge, lines: usize) -> (usize, usize, usize) {
        let is_end = |at: &usize| self.bytes[*at] == b'\n';
        let mut ends = (0..self.bytes.len()).filter(is_end).map(|at| at + 1);
        let first = if self.inside_line { ends.next() } else { Some(0) };
        let last = (0..self.bytes.len()).rfind(is_end).map_or(0, |at| at + 1);
        let first = first.unwrap_or(last);
        match edge {
            Edge::After(_) => {
                let end = lines.checked_sub(1).and_then(|before| ends.nth(before));
                (first, first, end.unwrap_or(last))
            }
            Edge::Before(_) => {
                let mut ends = (first..last).rev().filter(is_end).map(|at| at + 1);
                (first, ends.nth(lines).unwrap_or(first), last)
            }
        }
    }

    /// The lines of it that are asked for.
    fn page(self, wanted: &Wanted, redactor: &Redactor) -> Page {
        let find = wanted.find.as_ref().map(|text| text.to_lowercase());
        let lines = if find.is_some() { usize::MAX } else { wanted.lines };
        let (first, mut at, end) = self.whole_lines(wanted.edge, lines);
        let begins = at == first && self.bytes.len() < FARTHEST;
        let mut from = match wanted.edge {
            Edge::Before(_) if begins => None,
            // Of a line that is longer than a piece nothing is shown.
            _ => Some(self.place(if at < end { at } else { 0 })),
        };
        let mut found = VecDeque::new();
        if self.lost && matches!(wanted.edge, Edge::After(place) if place != Position::default()) {
            found.push_back((self.place(at), MISSED.to_owned()));
        }
        let mut made = Lines::new(false);
        for raw in self.bytes[at..end].split_inclusive(|byte| *byte == b'\n') {
            made.push(raw);
            at += raw.len();
            while let Some(line) = made.next(redactor) {
                if find.as_ref().is_none_or(|find| line.to_lowercase().contains(find)) {
                    found.push_back((self.place(at), line));
                }
                if find.is_some() && found.len() > wanted.lines {
                    from = found.pop_front().map(|(behind, _)| behind);
                }
            }
        }
        Page { lines: found.into(), from, at: self.place(end) }
    }
}

/// A page of an app's log.
pub(super) fn of_app(log: &Rotating, wanted: &Wanted, redactor: &Redactor) -> io::Result<Page> {
    Ok(Piece::of_app(log, wanted.edge)?.page(wanted, redactor))
}

/// A page of a log that is clean and redacted already.
pub(super) fn of_file(file: &File, wanted: &Wanted) -> io::Result<Page> {
    Ok(Piece::of_file(file, wanted.edge)?.page(wanted, &Redactor::default()))
}
