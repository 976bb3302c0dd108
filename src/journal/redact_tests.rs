//! What must hold of redaction: no spelling of a secret survives.

use super::*;
use data_encoding::{BASE64_NOPAD, HEXLOWER, HEXUPPER};
use proptest::prelude::*;

fn redactor(secrets: &[&str]) -> Redactor {
    Redactor::new(secrets.iter().map(|s| Secret::new((*s).to_owned())).collect())
}

/// Every byte that is not a letter or digit percent-encoded, in upper or lower case.
fn percent_encoded(text: &str, upper: bool) -> String {
    let one = |b: u8| match (b.is_ascii_alphanumeric(), upper) {
        (true, _) => char::from(b).to_string(),
        (false, true) => format!("%{b:02X}"),
        (false, false) => format!("%{b:02x}"),
    };
    text.bytes().map(one).collect()
}

fn json(text: &str) -> String {
    let quoted = serde_json::to_string(text).unwrap();
    quoted[1..quoted.len() - 1].to_owned()
}

fn json_ascii(text: &str) -> String {
    text.encode_utf16().map(|u| format!("\\u{u:04x}")).collect()
}

/// As `printf %q` writes it.
fn shell_escaped(text: &str) -> String {
    let one = |c: char| if c.is_alphanumeric() { c.to_string() } else { format!("\\{c}") };
    text.chars().map(one).collect()
}

/// As bash's `printf %q` writes what is not ASCII in the C locale.
fn octal_escaped(text: &str) -> String {
    let one = |b: u8| match b {
        b'\'' | b'\\' => format!("\\{}", char::from(b)),
        b' '..=b'~' => char::from(b).to_string(),
        _ => format!("\\{b:03o}"),
    };
    text.bytes().map(one).collect()
}

/// As `ls --quoting-style=shell-escape` writes it.
fn quoted_by_ls(text: &str) -> String {
    let mut out = String::new();
    let mut escaping = false;
    for b in text.bytes() {
        let escaped = !matches!(b, b' '..=b'~');
        if escaped != escaping {
            out.push_str(if escaped { "'$'" } else { "''" });
            escaping = escaped;
        }
        match b {
            b'\'' => out.push_str(r"'\''"),
            b'\n' => out.push_str("\\n"),
            _ if escaped => out.push_str(&format!("\\{b:03o}")),
            _ => out.push(char::from(b)),
        }
    }
    out + if escaping { "''" } else { "" }
}

/// As Python's `ascii` writes it.
fn ascii(text: &str) -> String {
    let one = |c: char| match u32::from(c) {
        _ if matches!(c, '\'' | '\\' | '"') => format!("\\{c}"),
        10 => "\\n".to_owned(),
        32..=126 => c.to_string(),
        code @ ..=255 => format!("\\x{code:02x}"),
        code => format!("\\U{code:08x}"),
    };
    text.chars().map(one).collect()
}

/// As zsh's `${(q)…}` writes it.
fn quoted_by_zsh(text: &str) -> String {
    let one = |c: char| match c {
        '\n' => "$'\\n'".to_owned(),
        c if c.is_alphanumeric() || !c.is_ascii() => c.to_string(),
        c => format!("\\{c}"),
    };
    text.chars().map(one).collect()
}

/// Every spelling that is promised, and some more.
fn spelled(secret: &str) -> Vec<String> {
    vec![
        secret.to_owned(),
        data_encoding::BASE64.encode(secret.as_bytes()),
        data_encoding::BASE64URL.encode(secret.as_bytes()),
        BASE64_NOPAD.encode(secret.as_bytes()),
        percent_encoded(secret, true),
        percent_encoded(secret, false),
        percent_encoded(secret, true).replace("%20", "+"),
        secret.replace('\'', r"'\''"),
        secret.replace('\'', r#"'"'"'"#),
        quoted_by_ls(secret),
        quoted_by_zsh(secret),
        shell_escaped(secret),
        octal_escaped(secret),
        json(secret),
        json(&json(secret)),
        ascii(secret),
        percent_encoded(&percent_encoded(secret, true), false),
        percent_encoded(&json(secret), false),
        HEXLOWER.encode(secret.as_bytes()),
        HEXUPPER.encode(secret.as_bytes()),
        json_ascii(secret),
        secret.escape_debug().to_string(),
    ]
}

#[test]
fn every_spelling_of_a_secret_is_removed() {
    for secret in ["hunter2hunter2", "p%s's \"w\\ord+", "a&b=c d/é🦀", "100%20%zz%", "xy\\nz-tab"]
    {
        let redactor = redactor(&[secret]);
        for form in spelled(secret) {
            let line = format!("before {form} after");
            let clean = redactor.redact(&line);
            assert!(clean.starts_with("before ") && clean.ends_with(" after"), "{form:?}: {clean}");
            assert!(clean.contains(MARK) && !clean.contains(&form), "{form:?}: {clean}");
        }
    }
}

#[test]
fn a_secret_is_found_inside_a_longer_base64_text() {
    let redactor = redactor(&["ghp_0123456789abcdef"]);
    for before in ["", "x", "xx", "x-access-token:", "user:", "me:"] {
        for after in ["", "y", "yy", "yyy"] {
            let basic = data_encoding::BASE64
                .encode(format!("{before}ghp_0123456789abcdef{after}").as_bytes());
            let line = format!("Authorization: Basic {basic}");
            let clean = redactor.redact(&line);
            let (left, right) = clean["Authorization: Basic ".len()..].split_once(MARK).unwrap();
            // A character at either edge holds bits of a neighbour as well.
            assert!(left.len() <= before.len() * 8 / 6 + 1, "{clean}");
            assert!(right.len() <= after.len() * 8 / 6 + 4, "{clean}");
        }
    }
}

/// Characters of an encoded secret that are left somewhere in a line.
fn left(redactor: &Redactor, line: &str, own: Range<usize>) -> usize {
    let mut hidden = vec![false; line.len()];
    redactor.spans(line).into_iter().for_each(|span| hidden[span].fill(true));
    hidden[own].iter().filter(|h| !**h).count()
}

/// The most characters of a secret that are left in a line, when a text with it is
/// encoded and broken into lines.
fn most_left(secret: &str, width: usize, code: Code, around: (&str, &str)) -> usize {
    let redactor = redactor(&[secret]);
    let mut most = 0;
    for before in 0..width {
        let text = format!("{}{secret}\nand more", "x".repeat(before));
        let end = before + secret.len();
        let (coded, own) = match code {
            Code::Base64 => (
                data_encoding::BASE64.encode(text.as_bytes()),
                (before * 4).div_ceil(3)..end * 4 / 3,
            ),
            Code::Hex => (HEXLOWER.encode(text.as_bytes()), before * 2..end * 2),
        };
        for (number, line) in coded.as_bytes().chunks(width).enumerate() {
            let at = number * width;
            let own = own.start.clamp(at, at + line.len())..own.end.clamp(at, at + line.len());
            let line = std::str::from_utf8(line).unwrap();
            let own = own.start - at + around.0.len()..own.end - at + around.0.len();
            most = most.max(left(&redactor, &format!("{}{line}{}", around.0, around.1), own));
        }
    }
    most
}

#[test]
fn of_a_secret_in_base64_that_is_broken_into_lines_two_bytes_are_left_at_most() {
    for secret in [
        "hunter",
        "hunter2",
        "Tr0ub4dor&3x",
        "thirteen-char",
        "correct-horse-battery-staple-0123456789",
        "bpaas-9f8e7d6c5b4a39281706f5e4d3c2b1a09f8e7d6c5b4a39281706f5e4d3c2b1a0-tail-of-it",
    ] {
        for width in [12, 13, 16, 20, 60, 64, 76] {
            let most = most_left(secret, width, Code::Base64, ("", ""));
            assert!(most < Code::Base64.least(true), "{most} of {secret} in {width}");
            let most = most_left(secret, width, Code::Base64, ("#8 0.123 ", "\\n' +"));
            assert!(most < Code::Base64.least(false), "{most} of {secret} in {width}");
        }
        // As `xxd -p` breaks it.
        let most = most_left(secret, 60, Code::Hex, ("", ""));
        assert!(most < Code::Hex.least(true), "{most} of {secret} in hexadecimal");
    }
    // Both halves of a secret that ends the text, with what the last character says of it.
    let redactor = redactor(&["Tr0ub4dor&3x!"]);
    let coded = data_encoding::BASE64.encode(b"Tr0ub4dor&3x!");
    for cut in 4..=BASE64_NOPAD.encode_len(13) - 4 {
        assert_eq!(redactor.redact(&coded[..cut]), MARK);
        assert_eq!(redactor.redact(&coded[cut..]), MARK, "{}", &coded[cut..]);
    }
}

#[test]
fn words_beside_a_break_stay_as_they_are() {
    let redactor = redactor(&["Tr0ub4dor&3x", "correct-horse-battery-staple-0123456789"]);
    let coded = data_encoding::BASE64.encode(b"Tr0ub4dor&3x");
    // Not at the edge of a run, or too little of it in a line that holds more.
    for line in [
        format!("{}x and so on", &coded[..9]),
        format!("x{}", &coded[9..]),
        format!("ends with {}", &coded[..5]),
        format!("{} it begins", &coded[11..]),
        "SGVsbG8sIHdvcmxkLCB0aGlzIGlzIG5vdGhpbmcgc2VjcmV0IGF0IGFsbCwganVzdCBhIHRleHQgdGhh"
            .to_owned(),
    ] {
        assert_eq!(redactor.redact(&line), line);
    }
}

#[test]
fn each_line_of_a_value_counts_and_its_json_form_goes_as_a_whole() {
    let key = "-----BEGIN KEY-----\nMIIEvQIBADANBg\r\nab\nkqhkiG9w0BAQEF\n-----END KEY-----\n";
    let redactor = redactor(&[key]);
    for line in key.lines().filter(|l| l.len() >= SHORTEST) {
        assert_eq!(redactor.redact(line), MARK);
        assert_eq!(redactor.redact(&format!("  {line};")), format!("  {MARK};"));
    }
    let line = serde_json::json!({ "key": key }).to_string();
    assert_eq!(redactor.redact(&line), format!("{{\"key\":\"{MARK}\"}}"));
}

#[test]
fn overlapping_and_nested_secrets_leave_nothing() {
    let redactor = redactor(&["abcdefgh", "efghijkl", "abcdef", "cdefghijklmn"]);
    assert_eq!(redactor.redact("xxabcdefghijklxx"), format!("xx{MARK}xx"));
    assert_eq!(redactor.redact("abcdefabcdef"), MARK);
    assert_eq!(redactor.redact("abcabcdefdef"), format!("abc{MARK}def"));
}

#[test]
fn short_values_and_lines_without_secrets_stay_as_they_are() {
    let redactor = redactor(&["on", "3000", "12345", "", "long-enough"]);
    for line in ["on 3000 12345", "", "100% \\o/ a+b %zz %", "lo", "\\u{110000} \\ud800 \\"] {
        assert!(matches!(redactor.redact(line), Cow::Borrowed(same) if same == line), "{line}");
    }
    assert_eq!(Redactor::default().redact("anything"), "anything");
}

#[test]
fn two_redactors_together_know_both_lists() {
    let (one, two) = (redactor(&["first-secret"]), redactor(&["second-secret"]));
    let both = one.and(&two).and(&one);
    assert_eq!(both.redact("first-secret second-secret"), format!("{MARK} {MARK}"));
    assert_eq!(both.tables.len(), 2);
    assert_eq!(format!("{both:?}"), "Redactor(hidden)");
}

#[test]
fn a_secret_that_is_part_of_the_mark_does_no_harm() {
    assert_eq!(redactor(&["redacted", "s3cret-value"]).redact("s3cret-value"), MARK);
}

#[test]
fn many_lines_and_many_secrets_are_quick() {
    let secrets: Vec<String> =
        (0..256).map(|i| format!("value-{i:04}-{}", "x".repeat(400))).collect();
    let redactor = redactor(&secrets.iter().map(String::as_str).collect::<Vec<_>>());
    let line = "GET /api/things?page=3&x=%20 200 in 3 ms \\n value-0 and so on ".repeat(4);
    let start = std::time::Instant::now();
    for _ in 0..2_000 {
        assert!(matches!(redactor.redact(&line), Cow::Borrowed(_)));
    }
    // About half a megabyte; a naive search over all spellings takes minutes.
    assert!(start.elapsed().as_secs() < 5, "{:?}", start.elapsed());
}

#[test]
fn a_quote_behind_a_double_quote_is_read_both_ways() {
    let line = |secret: &str, text: &str| redactor(&[secret]).redact(text).into_owned();
    assert_eq!(line("aA\"'%a", "x 'aA\"'\"'\"'%a' y"), "x '[redacted]' y");
    assert_eq!(line("aA'%aa", "x 'aA'\"'\"'%aa' y"), "x '[redacted]' y");
}

/// Texts in which quotes, per cents, backslashes, spaces and line ends are common.
fn secret() -> impl Strategy<Value = String> {
    proptest::collection::vec(
        prop_oneof![
            4 => "[a-zA-Z0-9]{1,4}",
            1 => Just("'".to_owned()), 1 => Just("\"".to_owned()), 1 => Just("%".to_owned()),
            1 => Just(" ".to_owned()), 1 => Just("+".to_owned()), 1 => Just("/=".to_owned()),
            1 => Just("é".to_owned()), 1 => Just("🦀".to_owned()), 1 => Just("\n".to_owned()),
        ],
        3..12,
    )
    .prop_map(|parts| parts.concat())
}

proptest! {
    #[test]
    fn no_spelling_of_any_secret_survives(
        secrets in proptest::collection::vec(secret(), 1..4),
        which in 0usize..4,
        form in 0usize..22,
        around in "[a-z ]{0,12}",
    ) {
        let which = which % secrets.len();
        let redactor = Redactor::new(secrets.iter().map(|s| Secret::new(s.clone())).collect());
        let secret = &secrets[which];
        prop_assume!(secret.chars().count() >= SHORTEST);
        // A raw line end never reaches a redactor: lines are split before.
        let hidden = &spelled(secret)[form];
        prop_assume!(!hidden.contains('\n'));
        let line = format!("{around}{hidden}{around}");
        let clean = redactor.redact(&line);
        prop_assert!(!clean.contains(hidden.as_str()), "{:?} in {:?}", hidden, clean);
        prop_assert!(!clean.contains(secret.as_str()));
        prop_assert!(clean.contains(MARK));
    }

    #[test]
    fn every_line_of_a_value_goes_and_any_text_is_survived(value in secret(), text in ".{0,80}") {
        let redactor = Redactor::new(vec![Secret::new(value.clone())]);
        let _ = redactor.redact(&text);
        for line in value.lines().filter(|l| l.chars().count() >= SHORTEST) {
            let clean = redactor.redact(line).into_owned();
            prop_assert!(!clean.contains(line));
        }
        for span in redactor.spans(&text) {
            prop_assert!(text.is_char_boundary(span.start) && text.is_char_boundary(span.end));
        }
    }
}

#[test]
fn a_line_that_ends_within_a_secret_shows_little_of_it() {
    let redactor = Redactor::new(vec![Secret::new("postgres://user:pass@host/db".to_owned())]);
    for (line, shown) in [
        ("to postgres://user:pass@host/d", "to [redacted]"),
        ("to postgres://u", "to [redacted]"),
        ("to postgres", "to postgres"),
        ("postgres://user:pas and more", "postgres://user:pas and more"),
    ] {
        assert_eq!(redactor.redact(line), shown);
    }
}
