//! Takes secrets out of a line before it is stored or sent.
//!
//! Each secret is looked for in the spellings that [`spellings`] knows, which are worked out
//! beforehand. An encoding around another, and one that is broken into lines, are not seen.

use super::clean::clean;
use super::spellings::spellings;
use crate::model::Secret;
use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use zeroize::Zeroizing;

/// What stands in the line where a secret stood.
const MARK: &str = "[redacted]";

/// Shorter values stay: `on` or `3000` would shred every log and protect nothing.
const SHORTEST: usize = 6;

/// A line that ends with more than this part of a secret gives too much of it away; less may be
/// `https://` or `postgres`, with which many begin.
const MUCH: usize = 3;

/// Knows the secrets of one app and removes them from lines. Cheap to clone.
#[derive(Clone, Default)]
pub struct Redactor {
    tables: Vec<Arc<Needles>>,
}

impl Redactor {
    /// Learns secrets. Values of fewer than six characters are not redacted;
    /// of a value with several lines, each line counts as well.
    #[allow(clippy::needless_pass_by_value, reason = "the secrets are wiped when this returns")]
    pub fn new(secrets: Vec<Secret>) -> Self {
        Self { tables: vec![Arc::new(Needles::new(&secrets))] }
    }

    /// A redactor that knows the secrets of both.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        let mut both = self.clone();
        both.tables.extend(other.tables.iter().filter(|t| !self.tables.contains(t)).cloned());
        both
    }

    /// The line with `[redacted]` in place of each secret.
    pub fn redact(&self, line: &str) -> String {
        mark(line, &self.spans(line))
    }

    /// One clean line without secrets out of a text that a program wrote.
    pub fn clean(&self, text: &str) -> String {
        self.redact(&clean(text).replace('\n', " "))
    }

    /// Where secrets stand in the text, in order, without overlaps.
    pub(super) fn spans(&self, text: &str) -> Vec<Range<usize>> {
        let mut found = Vec::new();
        self.tables.iter().for_each(|table| table.find(text, &mut found));
        found.sort_unstable_by_key(|s| s.start);
        let mut merged: Vec<Range<usize>> = Vec::with_capacity(found.len());
        for span in found {
            match merged.last_mut() {
                Some(last) if span.start <= last.end => last.end = last.end.max(span.end),
                _ => merged.push(span),
            }
        }
        merged
    }

    /// No secret takes more bytes than this in any spelling that is looked for.
    pub(super) fn reach(&self) -> usize {
        self.tables.iter().map(|t| t.longest).max().unwrap_or(0)
    }
}

impl fmt::Debug for Redactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Redactor(hidden)")
    }
}

/// The text with the mark in place of each span.
pub(super) fn mark(text: &str, spans: &[Range<usize>]) -> String {
    let mut out = String::with_capacity(text.len());
    let mut from = 0;
    for span in spans {
        // Needles are whole characters, so these never fail; if one did, leaving
        // text out is the safe side.
        out.push_str(text.get(from..span.start).unwrap_or_default());
        out.push_str(MARK);
        from = span.end;
    }
    out.push_str(text.get(from..).unwrap_or_default());
    out
}

/// The spellings of one set of secrets.
#[derive(PartialEq)]
struct Needles {
    /// By how they begin.
    beginning: HashMap<[u8; SHORTEST], Vec<Zeroizing<String>>>,
    /// Which first two bytes there are: rules out nearly every place without a hash.
    first_two: Vec<bool>,
    longest: usize,
}

impl Needles {
    fn new(secrets: &[Secret]) -> Self {
        // A line of a log holds no line end, but a key in PEM form has many.
        let lines = |value| std::iter::once(value).chain(str::split(value, ['\n', '\r']));
        let parts = secrets.iter().flat_map(|secret| lines(secret.expose()));
        let texts: BTreeSet<&str> = parts.flat_map(|part| [part, part.trim()]).collect();
        let long_enough = texts.into_iter().filter(|text| text.chars().count() >= SHORTEST);
        let mut needles =
            Self { beginning: HashMap::new(), first_two: vec![false; 1 << 16], longest: 0 };
        // A part of the mark itself cannot be hidden by the mark.
        for needle in long_enough.flat_map(spellings).filter(|n| !MARK.contains(n.as_str())) {
            if let Some(beginning) = needle.as_bytes().first_chunk() {
                needles.longest = needles.longest.max(needle.len());
                needles.first_two[first_two(beginning)] = true;
                needles.beginning.entry(*beginning).or_default().push(needle);
            }
        }
        needles
    }

    /// Finds every place where a spelling stands, or as much of one that the line ends within
    /// it, as where a program has ended in the middle of a block.
    fn find(&self, line: &str, found: &mut Vec<Range<usize>>) {
        let windows = line.as_bytes().windows(SHORTEST).enumerate();
        for (at, beginning) in windows.filter(|(_, window)| self.first_two[first_two(window)]) {
            let rest = &line.as_bytes()[at..];
            for needle in self.beginning.get(beginning).into_iter().flatten() {
                let is_much = rest.len() >= needle.len() / MUCH;
                if rest.starts_with(needle.as_bytes())
                    || is_much && needle.as_bytes().starts_with(rest)
                {
                    found.push(at..line.len().min(at + needle.len()));
                }
            }
        }
    }
}

fn first_two(bytes: &[u8]) -> usize {
    usize::from(bytes[0]) << 8 | usize::from(bytes[1])
}

#[cfg(test)]
mod tests;
