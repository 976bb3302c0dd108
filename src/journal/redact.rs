//! Takes secrets out of a line before it is stored or sent.
//!
//! A value is looked for as it is, in hexadecimal, in base64 (also in the middle of
//! something longer, as in `Authorization: Basic`, and broken into lines),
//! percent-encoded, with the backslashes of JSON, shells and debuggers, and in
//! the ways in which shells quote a quote. Encodings that leave a choice are
//! undone in the line instead of guessed in the secret, so no spelling of them
//! slips through; one around another, as in JSON inside JSON, is undone too.

use super::clean::clean;
use super::encodings::views;
use super::wrapped_encodings::{Code, Folded, each_form, is_alone, is_coded};
use crate::model::Secret;
use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::HashMap;
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

/// Bytes by which a place in a line is compared with all needles at once; not
/// more than [`SHORTEST`].
const PREFIX: usize = 4;

/// Prefixes that are told apart; enough that a long list of secrets still rules out
/// nearly every place at the first look.
const PREFIXES: usize = 1 << 16;

/// Longest spelling of one byte of a secret: `\\u0041`, or `'$'\n''` for a line end.
const LONGEST_SPELLING: usize = 8;

/// Knows the secrets of one app and removes them from lines. Cheap to clone.
#[derive(Clone, Default)]
pub struct Redactor {
    tables: Vec<Arc<Needles>>,
}

impl Redactor {
    /// Learns secrets. Values of fewer than six characters are not redacted;
    /// of a value with several lines, each line counts as well.
    #[must_use]
    #[allow(clippy::needless_pass_by_value, reason = "the secrets are wiped when this returns")]
    pub fn new(secrets: Vec<Secret>) -> Self {
        let table = Needles::new(&secrets);
        Self { tables: if table.needles.is_empty() { Vec::new() } else { vec![Arc::new(table)] } }
    }

    /// A redactor that knows the secrets of both.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        let mut both = self.clone();
        for table in &other.tables {
            if !both.tables.iter().any(|t| Arc::ptr_eq(t, table) || t.needles == table.needles) {
                both.tables.push(Arc::clone(table));
            }
        }
        both
    }

    /// The line with `[redacted]` in place of each secret.
    #[must_use]
    pub fn redact<'a>(&self, line: &'a str) -> Cow<'a, str> {
        let spans = self.spans(line);
        if spans.is_empty() { Cow::Borrowed(line) } else { Cow::Owned(mark(line, &spans)) }
    }

    /// One clean line without secrets out of a text that a program wrote.
    #[must_use]
    pub fn clean(&self, text: &str) -> String {
        let line = clean(text).replace('\n', " ");
        self.redact(&line).into_owned()
    }

    /// Where secrets stand in the text, in order, without overlaps.
    pub(super) fn spans(&self, text: &str) -> Vec<Range<usize>> {
        let mut found = Vec::new();
        if self.tables.is_empty() {
            return found;
        }
        let views = views(text);
        for table in &self.tables {
            table.find(text.as_bytes(), |place| found.push(place));
            for view in &views {
                table.find(&view.bytes, |place| {
                    found.push(view.origin[place.start]..view.origin[place.end]);
                });
            }
        }
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
        self.tables.iter().map(|t| t.longest * LONGEST_SPELLING).max().unwrap_or(0)
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

/// A spelling that is looked for as it is.
#[derive(PartialEq, Eq)]
struct Needle {
    text: Zeroizing<Vec<u8>>,
    /// In which encoding, if that may be broken into lines.
    code: Option<Code>,
}

/// The spellings of one set of secrets, indexed by how they begin.
struct Needles {
    needles: Vec<Needle>,
    by_prefix: HashMap<[u8; PREFIX], Vec<usize>>,
    seen: Seen,
    longest: usize,
    folded: Folded,
}

impl Needles {
    fn new(secrets: &[Secret]) -> Self {
        let mut needles = Vec::new();
        let mut folded = Folded::default();
        for secret in secrets {
            let value = secret.expose();
            let mut last = None;
            for text in [value, value.trim()] {
                if text.chars().count() >= SHORTEST && last.replace(text) != Some(text) {
                    folded.add(text);
                }
            }
            // A line of a log holds no line end, but a key in PEM form has many.
            for part in std::iter::once(value).chain(value.split(['\n', '\r'])) {
                for text in [part, part.trim()] {
                    if text.chars().count() >= SHORTEST {
                        spellings(text, &mut needles);
                    }
                }
            }
        }
        folded.sort();
        // A part of the mark itself cannot be hidden by the mark.
        needles.retain(|n| !MARK.as_bytes().windows(n.text.len()).any(|w| w == n.text.as_slice()));
        let order = |n: &Needle| (Reverse(n.text.len()), Reverse(n.code));
        needles.sort_unstable_by(|a, b| a.text.cmp(&b.text).then(order(a).cmp(&order(b))));
        needles.dedup_by(|a, b| a.text == b.text);
        needles.sort_by_key(order);
        let mut table = Self {
            longest: needles.first().map_or(0, |n| n.text.len()),
            needles,
            by_prefix: HashMap::new(),
            seen: Seen::new(),
            folded,
        };
        let Self { seen, folded, by_prefix, needles, .. } = &mut table;
        folded.piece_prefixes(|prefix| seen.add(prefix, Seen::BEGINNING));
        folded.end_parts(|part| seen.add(part, Seen::END));
        for (index, needle) in needles.iter().enumerate() {
            if let Some(prefix) = needle.text.first_chunk::<PREFIX>() {
                seen.add(*prefix, Seen::BEGINNING);
                by_prefix.entry(*prefix).or_default().push(index);
            }
        }
        table
    }

    /// Calls `found` for every place where a spelling stands, or what a line break has
    /// left of one.
    fn find(&self, bytes: &[u8], mut found: impl FnMut(Range<usize>)) {
        let alone = is_alone(bytes);
        for (at, window) in bytes.windows(PREFIX).enumerate() {
            let prefix = [window[0], window[1], window[2], window[3]];
            let seen = self.seen.of(prefix);
            if seen & Seen::BEGINNING != 0 {
                self.find_at(bytes, at, prefix, alone, &mut found);
            }
            if seen & Seen::END != 0
                && (at == 0 || !is_coded(bytes[at - 1]))
                && let Some(place) = self.folded.end(bytes, at, alone)
            {
                found(place);
            }
        }
    }

    /// Calls `found` for the longest needle that stands here; else for the beginning of
    /// one that the end of a run has cut, or a piece of one.
    fn find_at(
        &self,
        bytes: &[u8],
        at: usize,
        prefix: [u8; PREFIX],
        alone: bool,
        found: &mut impl FnMut(Range<usize>),
    ) {
        let rest = &bytes[at..];
        // Longest first, because the needles are sorted that way.
        for index in self.by_prefix.get(&prefix).map_or(&[][..], Vec::as_slice) {
            let Needle { text, code } = &self.needles[*index];
            if rest.starts_with(text) {
                return found(at..at + text.len());
            }
            // The line ends within it, as where a program has ended in the middle of a block.
            if rest.len() >= SHORTEST.max(text.len() / MUCH) && text.starts_with(rest) {
                return found(at..bytes.len());
            }
            let Some(code) = code else { continue };
            let same = text.iter().zip(rest).take_while(|(a, b)| a == b).count();
            if same >= code.least(alone) && rest.get(same).is_none_or(|b| !is_coded(*b)) {
                found(at..at + same);
            }
        }
        if let Some(place) = self.folded.piece(bytes, at) {
            found(place);
        }
    }
}

/// Which prefixes occur, and as what: two bits for each, found by a hash.
struct Seen(Box<[u64]>);

impl Seen {
    /// Something begins with it.
    const BEGINNING: u64 = 1;
    /// It is in the end of a secret.
    const END: u64 = 2;

    fn new() -> Self {
        Self(vec![0; PREFIXES * 2 / 64].into_boxed_slice())
    }

    fn add(&mut self, prefix: [u8; PREFIX], what: u64) {
        let (word, shift) = Self::place(prefix);
        self.0[word] |= what << shift;
    }

    fn of(&self, prefix: [u8; PREFIX]) -> u64 {
        let (word, shift) = Self::place(prefix);
        self.0[word] >> shift
    }

    fn place(prefix: [u8; PREFIX]) -> (usize, usize) {
        // Fibonacci hashing: the upper half of the product is well mixed.
        let hash = u32::from_le_bytes(prefix).wrapping_mul(0x9E37_79B1) >> 16;
        let bit = hash as usize % PREFIXES * 2;
        (bit / 64, bit % 64)
    }
}

/// Adds every spelling of a text that cannot be undone in the line.
fn spellings(text: &str, all: &mut Vec<Needle>) {
    let mut add = |code, needle: &[u8]| {
        if needle.len() >= SHORTEST {
            all.push(Needle { text: Zeroizing::new(needle.to_vec()), code });
        }
    };
    add(None, text.as_bytes());
    each_form(text, |code, form| add(Some(code), form));
}

#[cfg(test)]
#[path = "redact_tests.rs"]
mod tests;
