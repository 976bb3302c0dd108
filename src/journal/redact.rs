//! Takes secrets out of a line before it is stored or sent.
//!
//! A value is looked for as it is, in hexadecimal, in base64 (also in the middle of
//! something longer, as in `Authorization: Basic`, and broken into lines),
//! percent-encoded, with the backslashes of JSON, shells and debuggers, and in
//! the ways in which shells quote a quote. Encodings that leave a choice are
//! undone in the line instead of guessed in the secret, so no spelling of them
//! slips through; one around another, as in JSON inside JSON, is undone too.

use super::clean::clean;
use super::spelling::views;
use crate::model::Secret;
use data_encoding::{BASE64_NOPAD, BASE64URL_NOPAD, HEXLOWER, HEXUPPER};
use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use zeroize::Zeroizing;

/// What stands in the line where a secret stood.
const MARK: &str = "[redacted]";

/// Shorter values stay: `on` or `3000` would shred every log and protect nothing.
const SHORTEST: usize = 6;

/// Bytes by which a place in a line is compared with all needles at once; not
/// more than [`SHORTEST`].
const PREFIX: usize = 4;

/// Bits that remember which prefixes occur; big enough that a long list of
/// secrets still rules out nearly every place at the first look.
const BITS: usize = 1 << 16;

/// Longest spelling of one byte of a secret: `\\u0041`, or `'$'\n''` for a line end.
const LONGEST_SPELLING: usize = 8;

/// Characters of base64 that give a secret away when more of it is not in the line:
/// `base64` breaks its output after 76 characters, PEM after 64. Twelve bytes are
/// no coincidence.
const CHUNK: usize = 16;

/// Characters from one chunk that is looked for to the next: a group of base64. What
/// a piece has besides is less than this at either end, and goes with it.
const STRIDE: usize = 4;

/// Knows the secrets of one app and removes them from lines. Cheap to clone.
#[derive(Clone, Default)]
pub struct Redactor {
    tables: Vec<Arc<Table>>,
}

impl Redactor {
    /// Learns secrets. Values of fewer than six characters are not redacted;
    /// of a value with several lines, each line counts as well.
    #[must_use]
    #[allow(clippy::needless_pass_by_value, reason = "the secrets are wiped when this returns")]
    pub fn new(secrets: Vec<Secret>) -> Self {
        let table = Table::new(&secrets);
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

/// The spellings of one set of secrets, indexed by how they begin.
struct Table {
    needles: Vec<Zeroizing<Vec<u8>>>,
    by_prefix: HashMap<[u8; PREFIX], Vec<usize>>,
    seen: Box<[u64]>,
    longest: usize,
    /// Pieces of base64, sorted.
    chunks: Zeroizing<Vec<[u8; CHUNK]>>,
}

impl Table {
    fn new(secrets: &[Secret]) -> Self {
        let mut needles = Vec::new();
        let mut chunks = Zeroizing::new(Vec::new());
        for secret in secrets {
            let value = secret.expose();
            if value.chars().count() >= SHORTEST {
                chunks_of(value, &mut chunks);
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
        // A part of the mark itself cannot be hidden by the mark.
        needles.retain(|n| !MARK.as_bytes().windows(n.len()).any(|w| w == n.as_slice()));
        needles.sort_unstable_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        needles.dedup();
        chunks.sort_unstable();
        chunks.dedup();
        let mut table = Self {
            longest: needles.first().map_or(0, |n| n.len()),
            needles,
            by_prefix: HashMap::new(),
            seen: vec![0; BITS / 64].into_boxed_slice(),
            chunks,
        };
        for prefix in table.chunks.iter().filter_map(|chunk| chunk.first_chunk::<PREFIX>()) {
            let bit = bit_of(*prefix);
            table.seen[bit / 64] |= 1 << (bit % 64);
        }
        for (index, needle) in table.needles.iter().enumerate() {
            if let Some(prefix) = needle.first_chunk::<PREFIX>() {
                let bit = bit_of(*prefix);
                table.seen[bit / 64] |= 1 << (bit % 64);
                table.by_prefix.entry(*prefix).or_default().push(index);
            }
        }
        table
    }

    /// Calls `found` for the longest needle at every place where one stands.
    fn find(&self, bytes: &[u8], mut found: impl FnMut(Range<usize>)) {
        for (at, window) in bytes.windows(PREFIX).enumerate() {
            let prefix = [window[0], window[1], window[2], window[3]];
            let bit = bit_of(prefix);
            if self.seen[bit / 64] & (1 << (bit % 64)) == 0 {
                continue;
            }
            let indices = self.by_prefix.get(&prefix).map_or(&[][..], Vec::as_slice);
            // Longest first, because the needles are sorted that way.
            let hit =
                indices.iter().map(|i| &self.needles[*i]).find(|n| bytes[at..].starts_with(n));
            if let Some(needle) = hit {
                found(at..at + needle.len());
            } else if let Some(chunk) = bytes[at..].first_chunk::<CHUNK>()
                && self.chunks.binary_search(chunk).is_ok()
            {
                found(with_neighbours(bytes, at..at + CHUNK));
            }
        }
    }
}

/// A piece of base64 with the few characters beside it that may belong to it.
fn with_neighbours(bytes: &[u8], place: Range<usize>) -> Range<usize> {
    let coded = |b: &&u8| b.is_ascii_alphanumeric() || b"+/-_=".contains(b);
    let before = bytes[..place.start].iter().rev().take(STRIDE - 1).take_while(coded).count();
    let after = bytes[place.end..].iter().take(STRIDE - 1).take_while(coded).count();
    place.start - before..place.end + after
}

/// Adds the pieces of a value's base64.
fn chunks_of(value: &str, all: &mut Vec<[u8; CHUNK]>) {
    each_base64(value, |own| {
        // What is not longer is looked for as a whole.
        if own.len() > CHUNK {
            all.extend(own.windows(CHUNK).step_by(STRIDE).filter_map(|w| w.first_chunk()));
        }
    });
}

/// Calls `take` with each form that a text has in the middle of base64. Three bytes
/// are four characters, so what stands before the text shifts it into one of three
/// forms; these are the characters that depend on the text alone.
fn each_base64(text: &str, mut take: impl FnMut(&[u8])) {
    for encoding in [&BASE64_NOPAD, &BASE64URL_NOPAD] {
        for before in 0..3 {
            let mut shifted = Zeroizing::new(vec![0; before]);
            shifted.extend_from_slice(text.as_bytes());
            let encoded = Zeroizing::new(encoding.encode(&shifted));
            let own = (before * 8).div_ceil(6)..shifted.len() * 8 / 6;
            take(encoded.as_bytes().get(own).unwrap_or_default());
        }
    }
}

fn bit_of(prefix: [u8; PREFIX]) -> usize {
    // Fibonacci hashing: the upper half of the product is well mixed.
    (u32::from_le_bytes(prefix).wrapping_mul(0x9E37_79B1) >> 16) as usize % BITS
}

/// Adds every spelling of a text that cannot be undone in the line.
fn spellings(text: &str, all: &mut Vec<Zeroizing<Vec<u8>>>) {
    let mut add = |needle: &[u8]| {
        if needle.len() >= SHORTEST {
            all.push(Zeroizing::new(needle.to_vec()));
        }
    };
    add(text.as_bytes());
    for encoding in [&HEXLOWER, &HEXUPPER] {
        add(Zeroizing::new(encoding.encode(text.as_bytes())).as_bytes());
    }
    for encoding in [&BASE64_NOPAD, &BASE64URL_NOPAD] {
        add(Zeroizing::new(encoding.encode(text.as_bytes())).as_bytes());
    }
    each_base64(text, add);
}

#[cfg(test)]
#[path = "redact_tests.rs"]
mod tests;
