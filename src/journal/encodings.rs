//! Undoes the spellings in which programs write a text, and remembers where each byte stood.

use zeroize::Zeroizing;

/// A line with one encoding undone, and where each of its bytes came from.
pub(super) struct View {
    /// What the line means.
    pub bytes: Zeroizing<Vec<u8>>,
    /// One entry more than bytes: the last is the line's length.
    pub origin: Vec<usize>,
}

/// Undoes one spelling at the front of some bytes, into the function given, and says
/// how many bytes that took; `None` when there is none.
type Undo = fn(&[u8], &mut Put<'_>) -> Option<usize>;

/// Takes what a spelling means, and where in it that stands.
type Put<'p> = dyn FnMut(usize, &[u8]) + 'p;

/// Spellings, each with the byte without which a line has none of it: percent-encoding
/// (RFC 3986), the same with `+` for a space (HTML forms), backslashes as bytes, with
/// octal numbers and as characters, a shell's quotes by two readings.
const SPELLINGS: [(u8, Undo); 7] = [
    (b'%', percent),
    (b'+', plus),
    (b'\\', backslash),
    (b'\\', octal),
    (b'\\', character),
    (b'\'', quotes),
    (b'\'', single_quotes),
];

/// Which of them are found around which: a URL in a URL, JSON in JSON, one in the other.
const AROUND: [(usize, usize); 5] = [(0, 0), (2, 2), (0, 2), (1, 2), (2, 0)];

/// The line with what it holds of spellings undone.
pub(super) fn views(text: &str) -> Vec<View> {
    let mut first: [Option<View>; SPELLINGS.len()] = [const { None }; SPELLINGS.len()];
    for (view, (mark, undo)) in first.iter_mut().zip(SPELLINGS) {
        *view = View::new(text.as_bytes(), None, mark, undo);
    }
    let mut views = Vec::new();
    for (outer, inner) in AROUND {
        let (mark, undo) = SPELLINGS[inner];
        let outer = first[outer].as_ref();
        views.extend(outer.and_then(|v| View::new(&v.bytes, Some(&v.origin), mark, undo)));
    }
    views.extend(first.into_iter().flatten());
    views
}

impl View {
    /// `None` when the spelling is not there. `origin` says where the bytes themselves
    /// came from.
    fn new(from: &[u8], origin: Option<&[usize]>, mark: u8, undo: Undo) -> Option<Self> {
        if !from.contains(&mark) {
            return None;
        }
        let came_from = |at: usize| origin.map_or(at, |o| o[at]);
        let mut view = Self {
            bytes: Zeroizing::new(Vec::with_capacity(from.len())),
            origin: Vec::with_capacity(from.len() + 1),
        };
        let (mut at, mut undone) = (0, false);
        while at < from.len() {
            let mut put = |offset: usize, bytes: &[u8]| {
                view.bytes.extend_from_slice(bytes);
                view.origin.extend(std::iter::repeat_n(came_from(at + offset), bytes.len()));
            };
            at += match undo(&from[at..], &mut put) {
                Some(taken) => {
                    undone = true;
                    taken
                }
                None => {
                    put(0, &from[at..=at]);
                    1
                }
            };
        }
        view.origin.push(came_from(from.len()));
        undone.then_some(view)
    }
}

fn plus(rest: &[u8], put: &mut Put<'_>) -> Option<usize> {
    if rest[0] == b'+' {
        put(0, b" ");
        return Some(1);
    }
    percent(rest, put)
}

fn percent(rest: &[u8], put: &mut Put<'_>) -> Option<usize> {
    let digits = rest.strip_prefix(b"%")?.get(..2)?;
    put(0, &[u8::try_from(hex(digits)?).ok()?]);
    Some(3)
}

/// Backslash escapes: JSON, C, Python, Rust, and shells.
fn backslash(rest: &[u8], put: &mut Put<'_>) -> Option<usize> {
    let after = rest.strip_prefix(b"\\")?;
    let short = match *after.first()? {
        b'n' => b"\n",
        b'r' => b"\r",
        b't' => b"\t",
        b'x' => {
            let byte = u8::try_from(hex(after.get(1..3)?)?).ok()?;
            put(0, &[byte]);
            return Some(4);
        }
        b'u' => return unicode(rest, put),
        b'U' => {
            let code = char::from_u32(hex(after.get(1..9)?)?)?;
            put(0, code.encode_utf8(&mut [0; 4]).as_bytes());
            return Some(10);
        }
        _ => &after[..1],
    };
    put(0, short);
    Some(2)
}

/// The same where `\xe9` is a character, not a byte: `ascii()` of Python, JavaScript.
fn character(rest: &[u8], put: &mut Put<'_>) -> Option<usize> {
    if let Some(after) = rest.strip_prefix(b"\\x")
        && let Some(code) = hex(after.get(..2)?).and_then(char::from_u32)
    {
        put(0, code.encode_utf8(&mut [0; 4]).as_bytes());
        return Some(4);
    }
    backslash(rest, put)
}

/// The same where a digit begins an octal number: `$'\303\251'` by bash, C strings,
/// `a$'\n'b` by zsh. Where it does not, as after a backslash before every character,
/// [`backslash`] sees it.
fn octal(rest: &[u8], put: &mut Put<'_>) -> Option<usize> {
    dollar_quotes(rest, b"$'", b"'", put).or_else(|| escape(rest, put))
}

fn escape(rest: &[u8], put: &mut Put<'_>) -> Option<usize> {
    let after = rest.strip_prefix(b"\\")?;
    let digits = after.iter().take(3).take_while(|d| matches!(d, b'0'..=b'7')).count();
    if digits == 0 {
        return backslash(rest, put);
    }
    let number = after[..digits].iter().fold(0, |n, d| n * 8 + u32::from(d - b'0'));
    put(0, &[u8::try_from(number).ok()?]);
    Some(1 + digits)
}

/// The quotes of shells, between which a backslash is one: `'it'\''s'` by bash and Git,
/// `'it'"'"'s'` by dash and Python, `'a'$'\n''b'` by `ls`. Quotes that are only closed
/// and opened again are left out.
fn quotes(rest: &[u8], put: &mut Put<'_>) -> Option<usize> {
    if let Some(taken) = dollar_quotes(rest, b"'$'", b"''", put) {
        return Some(taken);
    }
    if rest.starts_with(b"\"'\"") {
        put(0, b"'");
        return Some(3);
    }
    quote_in_quotes(rest, put)
}

/// The same where a double quote before a quote is a character of the text: `'a"'"'"'b'`.
fn single_quotes(rest: &[u8], put: &mut Put<'_>) -> Option<usize> {
    dollar_quotes(rest, b"'$'", b"''", put).or_else(|| quote_in_quotes(rest, put))
}

fn quote_in_quotes(rest: &[u8], put: &mut Put<'_>) -> Option<usize> {
    for (spelling, meaning) in [("'\\''", "'"), ("'\"'\"'", "'"), ("''", "")] {
        if rest.starts_with(spelling.as_bytes()) {
            put(0, meaning.as_bytes());
            return Some(spelling.len());
        }
    }
    None
}

/// Escapes between `$'` and a quote.
fn dollar_quotes(rest: &[u8], open: &[u8], close: &[u8], put: &mut Put<'_>) -> Option<usize> {
    let mut at = open.len();
    if !rest.starts_with(open) || rest.get(at) != Some(&b'\\') {
        return None;
    }
    while let Some(taken) = escape(rest.get(at..)?, &mut |offset, bytes| put(at + offset, bytes)) {
        at += taken;
    }
    Some(at + if rest[at..].starts_with(close) { close.len() } else { 0 })
}

/// `\u0041`, `\ud83e\udd80` and `\u{41}`.
fn unicode(rest: &[u8], put: &mut Put<'_>) -> Option<usize> {
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
    put(0, char::from_u32(code)?.encode_utf8(&mut [0; 4]).as_bytes());
    Some(taken)
}

fn hex(digits: &[u8]) -> Option<u32> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}
