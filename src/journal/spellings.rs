//! The ways in which programs write a text, worked out before a line is searched for them.

use data_encoding::{BASE64_NOPAD, BASE64URL_NOPAD, HEXLOWER, HEXUPPER};
use zeroize::Zeroizing;

/// Most bytes that one byte of a text takes in a spelling: `\u0007`.
const LONGEST: usize = 6;

/// What percent-encoding leaves as it is besides letters and digits, and how it writes a
/// space: nothing; RFC 3986, also in forms; paths; JavaScript; forms (WHATWG URL).
const PERCENT: [(&str, &str); 11] = [
    ("", "%20"),
    ("", "+"),
    ("-._~", "%20"),
    ("-._~", "+"),
    ("-._~/", "%20"),
    ("-._~!*'()", "%20"),
    ("-._*", "+"),
    // Go: user and password, path segments; a password by WHATWG URL, as Node shows it; `encodeURI`.
    ("-._~$&+,;=", "%20"),
    ("-._~$&+:=@", "%20"),
    ("-._~!$%&'()*+,", "%20"),
    ("-._~!*'();/?:@&=+$,#", "%20"),
];

/// Programs that write with backslashes: which characters are numbers, how those are written,
/// and what else gets a backslash besides the backslash itself.
type Backslashes = (fn(char) -> bool, fn(char) -> String, &'static [&'static str]);

const BACKSLASHES: [Backslashes; 8] = [
    // In programs: nothing; JSON, C, Rust; Python, `$''` of bash; both quotes; JSON by PHP; and
    // in shells between double quotes.
    (char::is_control, json, &["", "\"", "'", "\"'", "\"/", "\"$`"]),
    // In shells: `%q` of bash; Ruby's `shellescape`; all that is no letter and no digit.
    (
        char::is_control,
        json,
        &[
            " !\"$&'()*,;<>?[]^`{|}",
            " !\"#$%&'()*;<=>?[]^`{|}~",
            " !\"#$%&'()*+,-./:;<=>?@[]^_`{|}~",
        ],
    ),
    // JSON in ASCII, also by PHP; by Go; by .NET.
    (|c| !is_printable(c), json, &["\"", "\"/"]),
    (|c| c.is_control() || "<>&".contains(c), json, &["\""]),
    (|c| !is_printable(c) || "\"'<>&+`".contains(c), upper_json, &[""]),
    // Python's `ascii` and `bytes`; `%q` of bash in the C locale, C.
    (|c| !is_printable(c), python, &["", "'", "\"'"]),
    (|c| !is_printable(c), |c| bytes(c, |b| format!("\\x{b:02x}")), &["", "'", "\""]),
    (|c| !is_printable(c), |c| bytes(c, |b| format!("\\{b:03o}")), &["'", "\""]),
];

/// All spellings of a text, each once. Base64 is there as it is in the middle of something
/// longer, too.
pub(super) fn spellings(text: &str) -> Vec<Zeroizing<String>> {
    let mut all = vec![Zeroizing::new(text.to_owned())];
    all.extend([HEXLOWER, HEXUPPER].map(|hex| hex.encode(text.as_bytes()).into()));
    for base64 in [BASE64_NOPAD, BASE64URL_NOPAD] {
        all.push(base64.encode(text.as_bytes()).into());
        // Three bytes are four characters, so what stands before the text shifts it into one
        // of three forms; these are the characters that depend on the text alone.
        for before in 0..3 {
            let shifted = Zeroizing::new([&[0; 2][..before], text.as_bytes()].concat());
            let encoded = Zeroizing::new(base64.encode(&shifted));
            let own = (before * 8).div_ceil(6)..shifted.len() * 8 / 6;
            all.push(encoded[own].to_owned().into());
        }
    }
    // A token of letters and digits alone is the same in every other spelling.
    if !text.bytes().all(|b| b.is_ascii_alphanumeric()) {
        for (kept, space) in PERCENT {
            for hex in [HEXLOWER, HEXUPPER] {
                all.push(spelled(text, |c, out| match c {
                    ' ' => out.push_str(space),
                    c if c.is_ascii_alphanumeric() || kept.contains(c) => out.push(c),
                    c => out.push_str(&bytes(c, |b| format!("%{}", hex.encode(&[b])))),
                }));
            }
        }
        // Between single quotes, by bash and Git, and by dash and Python.
        all.extend([r"'\''", r#"'"'"'"#].map(|quote| {
            spelled(text, |c, out| if c == '\'' { out.push_str(quote) } else { out.push(c) })
        }));
        for (is_numbered, number, all_backslashed) in BACKSLASHES {
            for backslashed in all_backslashed {
                all.push(spelled(text, |c, out| match c {
                    '\n' => out.push_str("\\n"),
                    '\r' => out.push_str("\\r"),
                    '\t' => out.push_str("\\t"),
                    c if is_numbered(c) => out.push_str(&number(c)),
                    c if c == '\\' || backslashed.contains(c) => out.extend(['\\', c]),
                    c => out.push(c),
                }));
            }
        }
    }
    all.sort_unstable_by(|a, b| a.as_str().cmp(b));
    all.dedup();
    all
}

/// The text as `write` writes each of its characters.
fn spelled(text: &str, write: impl Fn(char, &mut String)) -> Zeroizing<String> {
    // It never grows, so that no copy stays behind in memory, and is then cut to its length.
    let mut out = Zeroizing::new(String::with_capacity(text.len() * LONGEST));
    text.chars().for_each(|c| write(c, &mut out));
    Zeroizing::new(out.as_str().to_owned())
}

fn is_printable(c: char) -> bool {
    matches!(c, ' '..='~')
}

fn bytes(c: char, write: impl Fn(u8) -> String) -> String {
    c.encode_utf8(&mut [0; 4]).bytes().map(write).collect()
}

fn json(c: char) -> String {
    c.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")).collect()
}

fn upper_json(c: char) -> String {
    json(c).to_uppercase().replace('U', "u")
}

fn python(c: char) -> String {
    match u32::from(c) {
        code @ ..=0xff => format!("\\x{code:02x}"),
        code @ ..=0xffff => format!("\\u{code:04x}"),
        code => format!("\\U{code:08x}"),
    }
}
