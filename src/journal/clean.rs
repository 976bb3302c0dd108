//! Makes bytes from strangers safe to show: colour sequences go, control characters become visible.
//!
//! What a build or an app prints ends up in browsers and in the operator's
//! terminal, where escape sequences can hide text, set the clipboard or answer
//! as if the operator had typed. So escape sequences (ECMA-48) are removed,
//! other control characters and the marks that reorder text (Trojan Source)
//! are written out, and bytes that are not UTF-8 become U+FFFD.

/// Where in an escape sequence the stream stands.
#[derive(Clone, Copy, Default)]
enum At {
    /// In ordinary text.
    #[default]
    Text,
    /// After ESC, and after intermediate bytes that follow it.
    Escape,
    /// In a control sequence (ESC [), until its final byte.
    Sequence,
    /// In a control string (OSC, DCS, …), until BEL or ST.
    ControlString,
    /// After ESC in a control string: a backslash ends it.
    ControlStringEscape,
}

/// Turns pieces of a byte stream into clean text with `\n` as its only line end.
///
/// A carriage return ends a line too, so that a progress bar is a few lines
/// instead of one endless line; the line end of Windows counts once.
#[derive(Default)]
pub(super) struct Cleaner {
    at: At,
    /// Bytes of a character whose rest has not come yet, at most three.
    tail: Vec<u8>,
    after_return: bool,
    line_has_text: bool,
}

impl Cleaner {
    /// Cleans the next bytes of the stream and appends the text to `out`.
    pub(super) fn push(&mut self, bytes: &[u8], out: &mut String) {
        let bytes = [&std::mem::take(&mut self.tail)[..], bytes].concat();
        let mut rest = bytes.len();
        for chunk in bytes.utf8_chunks() {
            chunk.valid().chars().for_each(|c| self.character(c, out));
            rest -= chunk.valid().len() + chunk.invalid().len();
            match std::str::from_utf8(chunk.invalid()) {
                Err(error) if rest == 0 && error.error_len().is_none() => {
                    self.tail = chunk.invalid().to_vec();
                }
                Err(_) => self.character('\u{fffd}', out),
                Ok(_) => {}
            }
        }
    }

    /// Ends the stream: what is left of a cut character becomes U+FFFD, and what comes next is
    /// another stream.
    pub(super) fn finish(&mut self, out: &mut String) {
        if !self.tail.is_empty() {
            self.character('\u{fffd}', out);
        }
        *self = Self::default();
    }

    fn character(&mut self, c: char, out: &mut String) {
        // A line end ends every sequence: nothing unfinished hides later lines.
        if c == '\n' || c == '\r' {
            self.at = At::Text;
            return self.line_end(c, out);
        }
        self.after_return = false;
        self.at = match (self.at, c) {
            (At::Text, '\u{1b}') => At::Escape,
            (At::Text, '\u{9b}') => At::Sequence,
            (At::Text, '\u{90}' | '\u{98}' | '\u{9d}'..='\u{9f}') => At::ControlString,
            (At::Text, _) => return self.show(c, out),
            (At::Escape | At::ControlStringEscape, '\u{1b}') => At::Escape,
            (At::Escape, '[') => At::Sequence,
            (At::Escape, ']' | 'P' | 'X' | '^' | '_') => At::ControlString,
            (At::Escape, ' '..='/') => At::Escape,
            (At::Escape, '0'..='~') => At::Text,
            (At::Sequence, ' '..='?') => At::Sequence,
            (At::Sequence, '@'..='~') => At::Text,
            (At::ControlString, '\u{7}' | '\u{9c}') => At::Text,
            (At::ControlString, '\u{1b}') => At::ControlStringEscape,
            (At::ControlString, _) => At::ControlString,
            (At::ControlStringEscape, '\\') => At::Text,
            (At::ControlStringEscape, _) => At::ControlString,
            // Not a sequence after all: what broke it is text again.
            (At::Escape | At::Sequence, _) => {
                self.at = At::Text;
                return self.character(c, out);
            }
        };
    }

    fn line_end(&mut self, c: char, out: &mut String) {
        let second_half = c == '\n' && self.after_return;
        let lone_return = c == '\r' && !self.line_has_text;
        if !second_half && !lone_return {
            out.push('\n');
        }
        self.after_return = c == '\r' && !lone_return;
        self.line_has_text = false;
    }

    fn show(&mut self, c: char, out: &mut String) {
        self.line_has_text = true;
        if c != '\t' && must_be_written_out(c) {
            out.extend(c.escape_unicode());
        } else {
            out.push(c);
        }
    }
}

/// Control characters, and what breaks or reorders a line without being one.
fn must_be_written_out(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// One clean line out of one text, for what the platform writes itself.
pub(super) fn clean(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut cleaner = Cleaner::default();
    cleaner.push(text.as_bytes(), &mut out);
    cleaner.finish(&mut out);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn escape_sequences_are_removed() {
        for (dirty, text) in [
            ("\u{1b}[1;31mred\u{1b}[0m", "red"),
            ("\u{1b}]0;title\u{7}after", "after"),
            ("\u{1b}]52;c;ZXZpbA==\u{1b}\\after", "after"),
            ("\u{1b}(Bplain", "plain"),
            ("\u{9b}31mred", "red"),
            ("\u{1b}P1$qm\u{9c}x", "x"),
            ("\u{1b}[31\nnext", "\nnext"),
            ("\u{1b}]never ended\nnext", "\nnext"),
            ("\u{1b}[12äx", "äx"),
            ("\u{1b}\u{1b}[0mx", "x"),
        ] {
            assert_eq!(clean(dirty), text, "{dirty:?}");
        }
    }

    #[test]
    fn control_characters_become_visible_and_tabs_stay() {
        assert_eq!(clean("a\u{8}b\0\tc\u{7f}"), "a\\u{8}b\\u{0}\tc\\u{7f}");
        assert_eq!(clean("a\u{202e}b\u{2028}"), "a\\u{202e}b\\u{2028}");
        assert_eq!(clean("ä € 🦀"), "ä € 🦀");
    }

    #[test]
    fn carriage_returns_end_lines_and_windows_line_ends_count_once() {
        assert_eq!(clean("a\r\nb\r\n\r\nc"), "a\nb\n\nc");
        assert_eq!(clean("10%\r20%\r\r30%\n"), "10%\n20%\n30%\n");
    }

    #[test]
    fn bytes_that_are_not_text_become_a_mark() {
        let mut out = String::new();
        let mut cleaner = Cleaner::default();
        cleaner.push(b"a\xffb\xe2\x82", &mut out);
        assert_eq!(out, "a\u{fffd}b");
        cleaner.push(b"\xac", &mut out);
        assert_eq!(out, "a\u{fffd}b€");
        cleaner.push(b"\xf0\x9f", &mut out);
        cleaner.finish(&mut out);
        assert_eq!(out, "a\u{fffd}b€\u{fffd}");
    }

    proptest! {
        #[test]
        fn the_pieces_in_which_bytes_arrive_make_no_difference(
            bytes in proptest::collection::vec(prop_oneof![any::<u8>(), Just(0x1b), Just(b'['), Just(b'\r'), Just(b'\n')], 0..200),
            cut in 0usize..200,
        ) {
            let cut = cut.min(bytes.len());
            let (mut whole, mut parts) = (String::new(), String::new());
            let mut one = Cleaner::default();
            one.push(&bytes, &mut whole);
            one.finish(&mut whole);
            let mut two = Cleaner::default();
            two.push(&bytes[..cut], &mut parts);
            two.push(&bytes[cut..], &mut parts);
            two.finish(&mut parts);
            prop_assert_eq!(&whole, &parts);
            prop_assert!(whole.chars().all(|c| c == '\n' || c == '\t' || !must_be_written_out(c)));
        }
    }
}
