//! Takes secrets out of a line before it is stored or sent.
//!
//! A value is looked for as it is, in base64 (also in the middle of something
//! longer, as in `Authorization: Basic`), percent-encoded, with the backslashes
//! of JSON, shells and debuggers, and in the two ways in which shells quote a
//! quote. Encodings that leave a choice are undone in the line instead of
//! guessed in the secret, so no spelling of them slips through.

use crate::model::Secret;
use data_encoding::{BASE64_NOPAD, BASE64URL_NOPAD};
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

/// Longest spelling of one byte of a secret: `\u0041`.
const LONGEST_SPELLING: usize = 6;

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

    /// Without all but the first `most` lists of secrets.
    pub(super) fn newest(mut self, most: usize) -> Self {
        self.tables.truncate(most);
        self
    }

    /// The line with `[redacted]` in place of each secret.
    #[must_use]
    pub fn redact<'a>(&self, line: &'a str) -> Cow<'a, str> {
        let spans = self.spans(line);
        if spans.is_empty() { Cow::Borrowed(line) } else { Cow::Owned(mark(line, &spans)) }
    }

    /// Where secrets stand in the text, in order, without overlaps.
    pub(super) fn spans(&self, text: &str) -> Vec<Range<usize>> {
        let mut found = Vec::new();
        if self.tables.is_empty() {
            return found;
        }
        let views = [percent_view(text), plus_view(text), backslash_view(text)];
        for table in &self.tables {
            table.find(text.as_bytes(), |place| found.push(place));
            for view in views.iter().flatten() {
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
}

impl Table {
    fn new(secrets: &[Secret]) -> Self {
        let mut needles = Vec::new();
        for secret in secrets {
            let value = secret.expose();
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
        let mut table = Self {
            longest: needles.first().map_or(0, |n| n.len()),
            needles,
            by_prefix: HashMap::new(),
            seen: vec![0; BITS / 64].into_boxed_slice(),
        };
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
            let Some(indices) = self.by_prefix.get(&prefix) else { continue };
            // Longest first, because the needles are sorted that way.
            let hit =
                indices.iter().map(|i| &self.needles[*i]).find(|n| bytes[at..].starts_with(n));
            if let Some(needle) = hit {
                found(at..at + needle.len());
            }
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
    if text.contains('\'') {
        // 'it'\''s' by bash and Git, 'it'"'"'s' by dash and Python.
        add(Zeroizing::new(text.replace('\'', r"'\''")).as_bytes());
        add(Zeroizing::new(text.replace('\'', r#"'"'"'"#)).as_bytes());
    }
    for encoding in [&BASE64_NOPAD, &BASE64URL_NOPAD] {
        add(Zeroizing::new(encoding.encode(text.as_bytes())).as_bytes());
        // Three bytes are four characters, so what stands before the secret
        // shifts it into one of three forms; the characters that depend on the
        // secret alone are looked for.
        for before in 0..3 {
            let mut shifted = Zeroizing::new(vec![0; before]);
            shifted.extend_from_slice(text.as_bytes());
            let encoded = Zeroizing::new(encoding.encode(&shifted));
            let own = (before * 8).div_ceil(6)..shifted.len() * 8 / 6;
            add(encoded.as_bytes().get(own).unwrap_or_default());
        }
    }
}

/// A line with one encoding undone, and where each of its bytes came from.
struct View {
    bytes: Zeroizing<Vec<u8>>,
    /// One entry more than bytes: the last is the line's length.
    origin: Vec<usize>,
}

impl View {
    fn new(
        text: &str,
        mut decode: impl FnMut(&[u8], &mut dyn FnMut(&[u8])) -> Option<usize>,
    ) -> Self {
        let from = text.as_bytes();
        let mut view = Self {
            bytes: Zeroizing::new(Vec::with_capacity(from.len())),
            origin: Vec::with_capacity(from.len() + 1),
        };
        let mut at = 0;
        while at < from.len() {
            let mut put = |bytes: &[u8]| {
                view.bytes.extend_from_slice(bytes);
                view.origin.extend(std::iter::repeat_n(at, bytes.len()));
            };
            let taken = decode(&from[at..], &mut put).unwrap_or_else(|| {
                put(&from[at..=at]);
                1
            });
            at += taken;
        }
        view.origin.push(from.len());
        view
    }
}

/// Percent-encoding undone (RFC 3986).
fn percent_view(text: &str) -> Option<View> {
    text.contains('%').then(|| View::new(text, percent))
}

/// Percent-encoding with `+` for a space undone (HTML forms).
fn plus_view(text: &str) -> Option<View> {
    text.contains('+').then(|| {
        View::new(text, |rest, put| {
            if rest[0] == b'+' {
                put(b" ");
                return Some(1);
            }
            percent(rest, put)
        })
    })
}

fn percent(rest: &[u8], put: &mut dyn FnMut(&[u8])) -> Option<usize> {
    let digits = rest.strip_prefix(b"%")?.get(..2)?;
    put(&[u8::try_from(hex(digits)?).ok()?]);
    Some(3)
}

/// Backslash escapes undone: JSON, C, Python, Rust, and shells.
fn backslash_view(text: &str) -> Option<View> {
    text.contains('\\').then(|| View::new(text, backslash))
}

fn backslash(rest: &[u8], put: &mut dyn FnMut(&[u8])) -> Option<usize> {
    let after = rest.strip_prefix(b"\\")?;
    let short = match *after.first()? {
        b'n' => b"\n",
        b'r' => b"\r",
        b't' => b"\t",
        b'x' => {
            let byte = u8::try_from(hex(after.get(1..3)?)?).ok()?;
            put(&[byte]);
            return Some(4);
        }
        b'u' => return unicode(rest, put),
        _ => &after[..1],
    };
    put(short);
    Some(2)
}

/// `\u0041`, `\ud83e\udd80` and `\u{41}`.
fn unicode(rest: &[u8], put: &mut dyn FnMut(&[u8])) -> Option<usize> {
    let (code, taken) = if rest.get(2) == Some(&b'{') {
        let length = rest.iter().take(10).position(|b| *b == b'}')?;
        (hex(rest.get(3..length)?)?, length + 1)
    } else {
        let first = hex(rest.get(2..6)?)?;
        let second = || hex(rest.get(6..12)?.strip_prefix(b"\\u")?);
        match (first, second()) {
            (high @ 0xd800..=0xdbff, Some(low @ 0xdc00..=0xdfff)) => {
                (0x1_0000 + ((high - 0xd800) << 10) + (low - 0xdc00), 12)
            }
            _ => (first, 6),
        }
    };
    put(char::from_u32(code)?.encode_utf8(&mut [0; 4]).as_bytes());
    Some(taken)
}

fn hex(digits: &[u8]) -> Option<u32> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

#[cfg(test)]
#[path = "redact_tests.rs"]
mod tests;
