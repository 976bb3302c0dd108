//! Makes redacted lines of bounded length out of what a program writes.

use super::clean::Cleaner;
use super::redact::{Redactor, mark};

/// Bytes that one line may have; a longer one continues as the next. Far above
/// what people read, far below what hurts a browser.
pub const MAX_LINE: usize = 8 * 1024;

/// The line in place of what an app wrote faster than it was read.
pub(super) const MISSED: &str =
    "[better-paas] some output is left out here; it came too fast to be followed";

/// Text that waits to become lines. A cut never goes through a secret: a long
/// line is looked at beyond the cut by as much as the longest secret takes.
pub(super) struct Lines {
    cleaner: Cleaner,
    text: String,
    /// Up to here the text was handed out.
    start: usize,
    /// The line before was cut, and this is its rest.
    continued: bool,
    /// The end of a line whose beginning is lost: half of a secret may be in it.
    skips: bool,
}

impl Lines {
    /// `inside_line`: what is pushed first may be the end of a line whose beginning is lost.
    /// It is left out.
    pub(super) fn new(inside_line: bool) -> Self {
        let (cleaner, text) = (Cleaner::default(), String::new());
        Self { cleaner, text, start: 0, continued: false, skips: inside_line }
    }

    /// Takes the next bytes that a program has written.
    pub(super) fn push(&mut self, mut bytes: &[u8]) {
        if self.skips {
            let Some(end) = bytes.iter().position(|b| *b == b'\n') else { return };
            self.skips = false;
            bytes = &bytes[end + 1..];
        }
        self.text.drain(..std::mem::take(&mut self.start));
        self.cleaner.push(bytes, &mut self.text);
    }

    /// Adds a line of the platform's own.
    pub(super) fn note(&mut self, line: &str) {
        self.text.extend([line, "\n"]);
    }

    /// The next line that is complete, or the next piece of one that is too long.
    pub(super) fn next(&mut self, redactor: &Redactor) -> Option<String> {
        loop {
            let rest = &self.text[self.start..];
            // A character more than that, so that a line of just this length has its end in it.
            let ahead = &rest[..floor_boundary(rest, MAX_LINE + redactor.reach() + 4)];
            let end = ahead.find('\n');
            let window = &ahead[..end.unwrap_or(ahead.len())];
            if window.len() > MAX_LINE && (end.is_some() || ahead.len() < rest.len()) {
                return Some(self.cut(window.len(), redactor));
            }
            let line = redactor.redact(&rest[..end?]);
            self.start += window.len() + 1;
            let rest_is_empty = std::mem::take(&mut self.continued) && line.is_empty();
            if !rest_is_empty {
                return Some(line);
            }
        }
    }

    /// Whether all text was handed out.
    pub(super) fn is_empty(&self) -> bool {
        self.start == self.text.len()
    }

    /// What is left when nothing more comes: a last line without a line end.
    pub(super) fn last(&mut self, redactor: &Redactor) -> Option<String> {
        self.cleaner.finish(&mut self.text);
        let line = self.next(redactor);
        if line.is_some() || self.is_empty() {
            return line;
        }
        self.text.push('\n');
        self.next(redactor)
    }

    /// Forgets all but the last `lines` lines, and one that is not complete. When the text may
    /// begin inside a line, the part in which the end of a secret could stand that began before
    /// it goes too.
    pub(super) fn keep_last(&mut self, lines: usize, inside_line: bool, redactor: &Redactor) {
        self.start = match self.text.rmatch_indices('\n').nth(lines) {
            Some((before, _)) => before + 1,
            None if inside_line => self.beyond_half_a_secret(redactor),
            None => 0,
        };
    }

    /// The place behind whatever could be the end of a secret that began before the text.
    fn beyond_half_a_secret(&self, redactor: &Redactor) -> usize {
        let reach = redactor.reach();
        if let Some(line_end) = self.text.find('\n').filter(|end| *end < reach) {
            return line_end + 1;
        }
        let cut = floor_boundary(&self.text, reach);
        let spans = redactor.spans(&self.text[..floor_boundary(&self.text, 2 * reach)]);
        spans.iter().find(|s| s.start < cut && cut < s.end).map_or(cut, |across| across.end)
    }

    /// Takes a piece off the front of a line of which `length` bytes are looked at.
    fn cut(&mut self, length: usize, redactor: &Redactor) -> String {
        let window = &self.text[self.start..self.start + length];
        let mut cut = floor_boundary(window, MAX_LINE);
        let mut spans = redactor.spans(window);
        if let Some(across) = spans.iter().find(|s| s.start < cut && cut < s.end) {
            // The secret goes to the next piece as a whole, unless this piece
            // would be empty without it.
            cut = if across.start > 0 { across.start } else { across.end };
        }
        spans.retain(|s| s.end <= cut);
        let piece = mark(&window[..cut], &spans);
        self.start += cut;
        self.continued = true;
        piece
    }
}

/// The last character boundary at or before `at`.
fn floor_boundary(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Secret;
    use proptest::prelude::*;

    fn all(lines: &mut Lines, redactor: &Redactor) -> Vec<String> {
        std::iter::from_fn(|| lines.next(redactor)).collect()
    }

    #[test]
    fn a_line_waits_until_it_is_complete_or_too_long() {
        let mut lines = Lines::new(false);
        let none = Redactor::default();
        lines.push(b"one\ntw");
        assert_eq!(all(&mut lines, &none), ["one"]);
        lines.push(b"o\n\nthree");
        assert_eq!(all(&mut lines, &none), ["two", ""]);
        assert_eq!(lines.last(&none).as_deref(), Some("three"));
        assert_eq!(lines.last(&none), None);
        lines.push("é".repeat(MAX_LINE).as_bytes());
        assert_eq!(all(&mut lines, &none), ["é".repeat(MAX_LINE / 2)]);
        lines.push(b"\n");
        assert_eq!(all(&mut lines, &none), ["é".repeat(MAX_LINE / 2)]);
        assert_eq!(lines.last(&none), None);
    }

    #[test]
    fn no_cut_goes_through_a_secret() {
        let secret = "0123456789abcdefghij";
        let redactor = Redactor::new(vec![Secret::new(secret.to_owned())]);
        for before in MAX_LINE - 25..MAX_LINE + 5 {
            let mut lines = Lines::new(false);
            let mut out = Vec::new();
            let text = format!("{}{secret}{}", "x".repeat(before), "y".repeat(300));
            for part in text.as_bytes().chunks(7) {
                lines.push(part);
                out.extend(all(&mut lines, &redactor));
            }
            out.extend(std::iter::from_fn(|| lines.last(&redactor)));
            let joined = out.concat();
            assert_eq!(joined, format!("{}[redacted]{}", "x".repeat(before), "y".repeat(300)));
            assert!(out.len() == 2 && out.iter().all(|l| l.len() <= MAX_LINE), "{before}");
        }
    }

    proptest! {
        #[test]
        fn nothing_is_lost_and_nothing_comes_twice(
            lengths in proptest::collection::vec(prop_oneof![0usize..20, 8_000usize..30_000], 1..8),
            step in 1usize..9_000,
        ) {
            let text: String = lengths.iter().map(|n| "a".repeat(*n) + "\n").collect();
            let (mut lines, mut out, none) = (Lines::new(false), Vec::new(), Redactor::default());
            for part in text.as_bytes().chunks(step) {
                lines.push(part);
                while let Some(line) = lines.next(&none) {
                    out.push(line);
                }
            }
            prop_assert!(out.iter().all(|l| l.len() <= MAX_LINE));
            prop_assert_eq!(out.concat().len(), lengths.iter().sum::<usize>());
            let expected: usize = lengths.iter().map(|n| n.div_ceil(MAX_LINE).max(1)).sum();
            prop_assert_eq!(out.len(), expected);
        }
    }
}
