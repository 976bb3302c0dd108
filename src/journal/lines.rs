//! Cuts clean text into redacted lines of bounded length.

use super::redact::{Redactor, mark};

/// Bytes that one line may have; a longer one continues as the next. Far above
/// what people read, far below what hurts a browser.
pub const MAX_LINE: usize = 8 * 1024;

/// Text that waits to become lines. A cut never goes through a secret: a long
/// line is looked at beyond the cut by as much as the longest secret takes.
#[derive(Debug, Default)]
pub(super) struct Lines {
    text: String,
    /// Up to here the text was handed out.
    start: usize,
    /// Up to here there is no line end.
    searched: usize,
    /// The line before was cut, and this is its rest.
    continued: bool,
}

impl Lines {
    /// Where more text is appended.
    pub(super) fn buffer(&mut self) -> &mut String {
        // Handed-out text is dropped in one go now and then, not line by line.
        if self.start > 0 && self.start * 2 >= self.text.len() {
            self.text.drain(..self.start);
            self.searched = self.searched.saturating_sub(self.start);
            self.start = 0;
        }
        &mut self.text
    }

    /// The next line that is complete, or the next piece of one that is too long.
    pub(super) fn next(&mut self, redactor: &Redactor) -> Option<String> {
        loop {
            let from = self.searched.max(self.start);
            let end = self.text[from..].find('\n').map(|i| from + i);
            self.searched = end.unwrap_or(self.text.len());
            let length = self.searched - self.start;
            match end {
                Some(end) if length <= MAX_LINE => {
                    let line = self.text[self.start..end].to_owned();
                    self.start = end + 1;
                    let rest_is_empty = std::mem::take(&mut self.continued) && line.is_empty();
                    if !rest_is_empty {
                        return Some(redactor.redact(&line).into_owned());
                    }
                }
                Some(_) => return Some(self.cut(redactor)),
                None if length > MAX_LINE + redactor.reach() => return Some(self.cut(redactor)),
                None => return None,
            }
        }
    }

    /// What is left when nothing more comes: a last line without a line end.
    pub(super) fn last(&mut self, redactor: &Redactor) -> Option<String> {
        if let Some(line) = self.next(redactor) {
            return Some(line);
        }
        if self.start == self.text.len() {
            return None;
        }
        self.text.push('\n');
        self.next(redactor)
    }

    /// Forgets all but the last `lines` lines. When the text may begin inside a line, the
    /// part in which the end of a secret could stand that began before it goes too.
    pub(super) fn keep_last(&mut self, lines: usize, inside_line: bool, redactor: &Redactor) {
        let whole = self.text.strip_suffix('\n').unwrap_or(&self.text);
        let last = match lines.checked_sub(1) {
            Some(before) => whole.rmatch_indices('\n').nth(before).map(|(at, _)| at + 1),
            None => Some(self.text.len()),
        };
        self.start = match last {
            Some(start) => start,
            None if inside_line => self.beyond_half_a_secret(redactor),
            None => 0,
        };
        self.searched = self.start;
    }

    /// The place behind whatever could be the end of a secret that began before the text.
    fn beyond_half_a_secret(&self, redactor: &Redactor) -> usize {
        let reach = redactor.reach();
        let line_end = self.text.find('\n').map(|at| at + 1);
        if let Some(line_end) = line_end.filter(|end| *end <= reach) {
            return line_end;
        }
        let window = &self.text[..floor_boundary(&self.text, 2 * reach)];
        let cut = floor_boundary(&self.text, reach);
        let spans = redactor.spans(window);
        spans.iter().find(|s| s.start < cut && cut < s.end).map_or(cut, |across| across.end)
    }

    /// Forgets what waits.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Takes a piece off the front of a line that is longer than [`MAX_LINE`].
    fn cut(&mut self, redactor: &Redactor) -> String {
        let ahead = (self.start + MAX_LINE + redactor.reach()).min(self.searched);
        let window = &self.text[self.start..floor_boundary(&self.text, ahead)];
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
        self.searched = self.searched.max(self.start);
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
        let mut lines = Lines::default();
        let none = Redactor::default();
        lines.buffer().push_str("one\ntw");
        assert_eq!(all(&mut lines, &none), ["one"]);
        lines.buffer().push_str("o\n\nthree");
        assert_eq!(all(&mut lines, &none), ["two", ""]);
        assert_eq!(lines.last(&none).as_deref(), Some("three"));
        assert_eq!(lines.last(&none), None);
        lines.buffer().push_str(&"é".repeat(MAX_LINE));
        assert_eq!(all(&mut lines, &none), ["é".repeat(MAX_LINE / 2)]);
        lines.buffer().push('\n');
        assert_eq!(all(&mut lines, &none), ["é".repeat(MAX_LINE / 2)]);
        assert_eq!(lines.last(&none), None);
    }

    #[test]
    fn no_cut_goes_through_a_secret() {
        let secret = "0123456789abcdefghij";
        let redactor = Redactor::new(vec![Secret::new(secret.to_owned())]);
        for before in MAX_LINE - 25..MAX_LINE + 5 {
            let mut lines = Lines::default();
            let mut out = Vec::new();
            let text = format!("{}{secret}{}", "x".repeat(before), "y".repeat(300));
            for part in text.as_bytes().chunks(7) {
                lines.buffer().push_str(std::str::from_utf8(part).unwrap());
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
            let (mut lines, mut out, none) = (Lines::default(), Vec::new(), Redactor::default());
            for part in text.as_bytes().chunks(step) {
                lines.buffer().push_str(std::str::from_utf8(part).unwrap());
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
