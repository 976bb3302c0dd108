//! Base64 and hexadecimal that are broken into lines: finds what of a secret is in one of the lines.
//!
//! `base64` breaks its output after 76 characters, PEM after 64, `xxd -p` after 60,
//! and a line is shown before the next one is there. So a line is searched for what
//! a break leaves of a secret: its beginning where a run of such characters ends, its
//! end where one begins, and any piece that is long enough. What is shorter than
//! [`Code::least`] stays, two bytes of a secret where lines hold nothing else.

use data_encoding::{BASE64_NOPAD, BASE64URL_NOPAD, HEXLOWER, HEXUPPER};
use std::ops::Range;
use zeroize::Zeroizing;

/// Characters of a secret that give it away wherever they stand: twelve bytes, or
/// eight in hexadecimal, are no coincidence.
const CHUNK: usize = 16;

/// Characters from one chunk that is looked for to the next: a group of base64. What
/// a piece has besides is less than this at either end, and goes with it.
const STRIDE: usize = 4;

/// A shorter piece out of the middle of a secret is looked for only where it ends a
/// run: what is left of it is the whole of a line.
const SHORTEST_CHUNK: usize = 8;

/// Longest piece at a run's beginning that may hold no chunk.
const TAIL: usize = CHUNK + STRIDE - 1;

/// Encodings that tools break into lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Code {
    Base64,
    Hex,
}

impl Code {
    /// Characters by which a secret's beginning is known at the end of a run, and its
    /// end at the beginning of one. Words of ordinary lines coincide sooner than lines
    /// that hold nothing else do. A character is six bits of base64, and four in
    /// hexadecimal.
    pub(super) fn least(self, alone: bool) -> usize {
        match (self, alone) {
            (Self::Base64, true) => 4,
            (Self::Base64, false) => 6,
            (Self::Hex, _) => 8,
        }
    }
}

/// The pieces of some secrets.
#[derive(Default)]
pub(super) struct Folded {
    /// Sorted; the last ones of a secret end with zeros.
    chunks: Zeroizing<Vec<[u8; CHUNK]>>,
    /// How the secrets end, backwards, sorted, filled with zeros.
    ends: Zeroizing<Vec<[u8; TAIL]>>,
    hex_ends: Zeroizing<Vec<[u8; TAIL]>>,
}

impl Folded {
    /// Adds the pieces of a secret.
    pub(super) fn add(&mut self, value: &str) {
        each_inner(value, |_, own| {
            for (at, _) in own.iter().enumerate().step_by(STRIDE) {
                let piece = &own[at..own.len().min(at + CHUNK)];
                if piece.len() >= SHORTEST_CHUNK {
                    self.chunks.push(filled(piece.iter()));
                }
            }
        });
        each_form(value, |code, own| {
            let ends = match code {
                Code::Base64 => &mut self.ends,
                Code::Hex => &mut self.hex_ends,
            };
            ends.push(filled(own.iter().rev()));
        });
    }

    /// Call it when everything was added.
    pub(super) fn sort(&mut self) {
        tidied(&mut self.chunks);
        tidied(&mut self.ends);
        tidied(&mut self.hex_ends);
    }

    /// Calls `take` with how each piece begins that [`Self::piece`] finds.
    pub(super) fn piece_prefixes<const N: usize>(&self, take: impl FnMut([u8; N])) {
        self.chunks.iter().filter_map(|chunk| chunk.first_chunk()).copied().for_each(take);
    }

    /// Calls `take` with every few characters of the pieces that [`Self::end`] finds.
    pub(super) fn end_parts<const N: usize>(&self, mut take: impl FnMut([u8; N])) {
        for end in self.ends.iter().chain(self.hex_ends.iter()) {
            for window in end.windows(N) {
                let mut part = [0; N];
                part.iter_mut().zip(window.iter().rev()).for_each(|(to, from)| *to = *from);
                take(part);
            }
        }
    }

    /// A piece out of the middle of a secret that stands here.
    pub(super) fn piece(&self, bytes: &[u8], at: usize) -> Option<Range<usize>> {
        let run = bytes[at..].iter().take(CHUNK).take_while(|b| is_coded(**b)).count();
        if run < SHORTEST_CHUNK {
            return None;
        }
        let piece = &bytes[at..at + run];
        begins(&self.chunks, piece).then(|| with_neighbours(bytes, at..at + run))
    }

    /// The end of a secret that stands at the beginning of a run. `alone`: the line
    /// holds nothing else.
    pub(super) fn end(&self, bytes: &[u8], at: usize, alone: bool) -> Option<Range<usize>> {
        let run = bytes[at..].iter().take(TAIL).take_while(|b| is_coded(**b)).count();
        for length in (Code::Base64.least(alone)..=run).rev() {
            let backwards: [u8; TAIL] = filled(bytes[at..at + length].iter().rev());
            let backwards = &backwards[..length];
            if begins(&self.ends, backwards)
                || (length >= Code::Hex.least(alone) && begins(&self.hex_ends, backwards))
            {
                return Some(with_neighbours(bytes, at..at + length));
            }
        }
        None
    }
}

/// Sorts a list, and gives back the room of what stood there twice: most of base64 is alike
/// in both alphabets, and these lists are what a long secret takes in memory.
fn tidied<const N: usize>(list: &mut Zeroizing<Vec<[u8; N]>>) {
    list.sort_unstable();
    list.dedup();
    // Copied, so that what is given back is wiped.
    *list = Zeroizing::new(list.to_vec());
}

/// Whether something in a sorted list begins with these bytes.
fn begins<const N: usize>(sorted: &[[u8; N]], bytes: &[u8]) -> bool {
    let at = sorted.partition_point(|entry| &entry[..] < bytes);
    sorted.get(at).is_some_and(|entry| entry.starts_with(bytes))
}

fn filled<'a, const N: usize>(bytes: impl Iterator<Item = &'a u8>) -> [u8; N] {
    let mut all = [0; N];
    all.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
    all
}

/// A piece with the few characters beside it that may belong to it.
fn with_neighbours(bytes: &[u8], place: Range<usize>) -> Range<usize> {
    let coded = |b: &&u8| is_coded(**b);
    let before = bytes[..place.start].iter().rev().take(STRIDE - 1).take_while(coded).count();
    let after = bytes[place.end..].iter().take(STRIDE - 1).take_while(coded).count();
    place.start - before..place.end + after
}

/// Whether base64 may have this byte, in any of its alphabets.
pub(super) fn is_coded(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'-' | b'_' | b'=')
}

/// Whether a line holds nothing but what may be base64.
pub(super) fn is_alone(line: &[u8]) -> bool {
    line.trim_ascii().iter().all(|b| is_coded(*b))
}

/// Calls `take` with the forms of a text on its own, and with those of [`each_inner`].
pub(super) fn each_form(text: &str, mut take: impl FnMut(Code, &[u8])) {
    for encoding in [&BASE64_NOPAD, &BASE64URL_NOPAD] {
        take(Code::Base64, Zeroizing::new(encoding.encode(text.as_bytes())).as_bytes());
    }
    each_inner(text, take);
}

/// Calls `take` with each form that a text has in the middle of something longer. Three
/// bytes are four characters of base64, so what stands before the text shifts it into one
/// of three forms; these are the characters that depend on the text alone.
fn each_inner(text: &str, mut take: impl FnMut(Code, &[u8])) {
    for encoding in [&HEXLOWER, &HEXUPPER] {
        take(Code::Hex, Zeroizing::new(encoding.encode(text.as_bytes())).as_bytes());
    }
    for encoding in [&BASE64_NOPAD, &BASE64URL_NOPAD] {
        for before in 0..3 {
            let mut shifted = Zeroizing::new(vec![0; before]);
            shifted.extend_from_slice(text.as_bytes());
            let encoded = Zeroizing::new(encoding.encode(&shifted));
            let own = (before * 8).div_ceil(6)..shifted.len() * 8 / 6;
            take(Code::Base64, encoded.as_bytes().get(own).unwrap_or_default());
        }
    }
}
