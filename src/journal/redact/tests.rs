//! What must hold of redaction: no spelling of a secret survives.

use super::*;
use data_encoding::{BASE64, BASE64_NOPAD, BASE64URL, HEXLOWER, HEXUPPER};
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

/// As Python's `json.dumps` writes it.
fn json_ascii(text: &str) -> String {
    let one = |c: char| match c {
        ' '..='~' => c.to_string(),
        c => c.encode_utf16(&mut [0; 2]).iter().map(|u| format!("\\u{u:04x}")).collect(),
    };
    json(text).chars().map(one).collect()
}

/// With a backslash before all that could mean something to a shell.
fn shell_escaped(text: &str) -> String {
    let one = |c: char| match c {
        '\n' => "\\n".to_owned(),
        c if c.is_alphanumeric() || !c.is_ascii() => c.to_string(),
        c => format!("\\{c}"),
    };
    text.chars().map(one).collect()
}

/// As bash's `printf %q` writes what is not ASCII in the C locale.
fn octal_escaped(text: &str) -> String {
    let one = |b: u8| match b {
        b'\'' | b'\\' => format!("\\{}", char::from(b)),
        b' '..=b'~' => char::from(b).to_string(),
        b'\n' => "\\n".to_owned(),
        _ => format!("\\{b:03o}"),
    };
    text.bytes().map(one).collect()
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

/// Every spelling that is promised, of one line each.
fn spelled(secret: &str) -> Vec<String> {
    let mut all = vec![
        secret.to_owned(),
        percent_encoded(secret, true),
        percent_encoded(secret, false),
        percent_encoded(secret, true).replace("%20", "+"),
        secret.replace('\'', r"'\''"),
        secret.replace('\'', r#"'"'"'"#),
        shell_escaped(secret),
        octal_escaped(secret),
        json(secret),
        json_ascii(secret),
        ascii(secret),
        HEXLOWER.encode(secret.as_bytes()),
        HEXUPPER.encode(secret.as_bytes()),
        secret.escape_debug().to_string(),
    ];
    for encoding in [&BASE64, &BASE64URL, &BASE64_NOPAD] {
        all.push(encoding.encode(secret.as_bytes()));
    }
    all.retain(|spelling| !spelling.contains('\n'));
    all
}

/// As many characters of base64 around a secret say something of it.
fn left_of_base64(redactor: &Redactor, before: &str, secret: &str, after: &str) -> [usize; 2] {
    let line = BASE64.encode(format!("{before}{secret}{after}").as_bytes());
    let clean = redactor.redact(&line);
    let (left, right) = clean.split_once(MARK).unwrap_or((&line, &line));
    [left, right].map(str::len)
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
            let [left, right] = left_of_base64(&redactor, before, "ghp_0123456789abcdef", after);
            // A character at either edge holds bits of a neighbour as well.
            assert!(left <= before.len() * 8 / 6 + 1, "{before} {left}");
            assert!(right <= after.len() * 8 / 6 + 4, "{after} {right}");
        }
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
        assert_eq!(redactor.redact(line), line);
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
        assert_eq!(redactor.redact(&line), line);
    }
    // About half a megabyte; a naive search over all spellings takes minutes.
    assert!(start.elapsed().as_secs() < 5, "{:?}", start.elapsed());
}

#[test]
fn a_quote_behind_a_double_quote_is_read_both_ways() {
    let line = |secret: &str, text: &str| redactor(&[secret]).redact(text);
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
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn of_a_thousand_random_secrets_no_spelling_survives(
        secrets in proptest::collection::vec(secret(), 1..4),
        around in "[a-z ]{0,12}",
    ) {
        let secret = &secrets[0];
        prop_assume!(secret.chars().count() >= SHORTEST);
        let redactor = Redactor::new(secrets.iter().map(|s| Secret::new(s.clone())).collect());
        for hidden in spelled(secret) {
            let clean = redactor.redact(&format!("{around}{hidden}{around}"));
            prop_assert!(!clean.contains(hidden.as_str()), "{:?} in {:?}", hidden, clean);
            prop_assert!(!clean.contains(secret.as_str()));
            prop_assert!(clean.contains(MARK));
        }
        let [left, right] = left_of_base64(&redactor, &around, secret, &around);
        let most = around.len() * 8 / 6 + 4;
        prop_assert!(left <= most && right <= most, "{} and {} of {}", left, right, most);
    }

    #[test]
    fn every_line_of_a_value_goes_and_any_text_is_survived(value in secret(), text in ".{0,80}") {
        let redactor = Redactor::new(vec![Secret::new(value.clone())]);
        let _ = redactor.redact(&text);
        for line in value.lines().filter(|l| l.chars().count() >= SHORTEST) {
            let clean = redactor.redact(line);
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
