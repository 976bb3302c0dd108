//! JSON objects written straight into an answer: what is asked for all the time is
//! mostly text that needs no escape, and is copied as a whole.

use serde::Serialize;

/// Bytes of a text that are looked at together.
const CHUNK: usize = 32;

/// An object that is being written.
pub(super) struct Object<'o> {
    out: &'o mut Vec<u8>,
    empty: bool,
}

/// Writes an object with the fields that `fill` names.
pub(super) fn object(out: &mut Vec<u8>, fill: impl FnOnce(&mut Object<'_>)) {
    out.push(b'{');
    fill(&mut Object { out, empty: true });
    out.push(b'}');
}

impl Object<'_> {
    fn name(&mut self, name: &'static str) {
        // Room for everything at once is asked for once.
        self.out.reserve(name.len() + 4);
        if !std::mem::take(&mut self.empty) {
            self.out.push(b',');
        }
        self.out.push(b'"');
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
    }

    pub fn text(&mut self, name: &'static str, text: &str) {
        self.name(name);
        string(self.out, text);
    }

    pub fn maybe_text(&mut self, name: &'static str, text: Option<&str>) {
        self.name(name);
        match text {
            Some(text) => string(self.out, text),
            None => self.out.extend_from_slice(b"null"),
        }
    }

    pub fn texts(&mut self, name: &'static str, texts: &[&str]) {
        self.name(name);
        self.out.push(b'[');
        for (at, text) in texts.iter().enumerate() {
            if at > 0 {
                self.out.push(b',');
            }
            string(self.out, text);
        }
        self.out.push(b']');
    }

    pub fn flag(&mut self, name: &'static str, flag: bool) {
        self.name(name);
        self.out.extend_from_slice(if flag { b"true" } else { b"false" });
    }

    pub fn number(&mut self, name: &'static str, number: i64) {
        self.value(name, &number);
    }

    /// A field with anything that serde knows.
    pub fn value(&mut self, name: &'static str, value: &impl Serialize) {
        self.name(name);
        any(self.out, value);
    }

    /// A field with what `write` writes.
    pub fn written(&mut self, name: &'static str, write: impl FnOnce(&mut Vec<u8>)) {
        self.name(name);
        write(self.out);
    }
}

/// Writes a string (RFC 8259, 7).
fn string(out: &mut Vec<u8>, text: &str) {
    if !is_plain(text.as_bytes()) {
        return any(out, &text);
    }
    out.reserve(text.len() + 2);
    out.push(b'"');
    out.extend_from_slice(text.as_bytes());
    out.push(b'"');
}

/// Whether no byte needs an escape. Looks at whole chunks without leaving early, so
/// that the compiler compares many bytes in one go.
fn is_plain(text: &[u8]) -> bool {
    let special = |bad: bool, &b: &u8| bad | (b < b' ') | (b == b'"') | (b == b'\\');
    let (chunks, rest) = text.as_chunks::<CHUNK>();
    chunks.iter().all(|chunk| !chunk.iter().fold(false, special))
        && !rest.iter().fold(false, special)
}

fn any(out: &mut Vec<u8>, value: &(impl Serialize + ?Sized)) {
    let before = out.len();
    if let Err(error) = serde_json::to_writer(&mut *out, value) {
        // Text and numbers always can; a type that cannot be written is a bug here.
        log::error!("a value could not be written as JSON: {error}");
        out.truncate(before);
        out.extend_from_slice(b"null");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn what_is_written_is_read_back_the_same() {
        // Each character that needs an escape at each place of a chunk and around it.
        for length in [0, 1, 31, 32, 33, 63, 64, 65, 100] {
            for special in ['"', '\\', '\n', '\u{0}', '\u{1f}', '\u{7f}', 'ä', '/'] {
                for at in 0..=length {
                    let text: String = "x".repeat(at)
                        + &special.to_string()
                        + &"y".repeat(usize::saturating_sub(length, at));
                    let mut out = Vec::new();
                    string(&mut out, &text);
                    assert_eq!(serde_json::from_slice::<Value>(&out).unwrap(), json!(text));
                }
            }
        }
    }

    #[test]
    fn an_object_has_the_fields_that_were_named() {
        let mut out = Vec::new();
        object(&mut out, |out| {
            out.text("a", "x\"y");
            out.maybe_text("b", None);
            out.maybe_text("c", Some("z"));
            out.flag("d", true);
            out.number("e", -7);
            out.texts("f", &["p", "q\n"]);
            out.texts("g", &[]);
            out.value("h", &[1, 2]);
            out.written("i", |out| object(out, |_| {}));
        });
        let expected = json!({
            "a": "x\"y", "b": null, "c": "z", "d": true, "e": -7, "f": ["p", "q\n"], "g": [],
            "h": [1, 2], "i": {}
        });
        assert_eq!(serde_json::from_slice::<Value>(&out).unwrap(), expected);
    }
}
