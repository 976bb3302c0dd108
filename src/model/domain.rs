//! Host names that an app answers at besides the one that follows from its name.

use super::Invalid;
use std::net::Ipv6Addr;

/// Domains that one app may have: a certificate authority limits how many new
/// certificates a week it gives, at about this number.
pub const MAX_DOMAINS: usize = 50;

/// Bytes in a host name (RFC 1035 §2.3.4, without the root's dot).
const MAX_LENGTH: usize = 253;
/// Bytes in one label of it.
const MAX_LABEL: usize = 63;

text_value! {
    /// A host name of at least two labels (RFC 1123 §2.1); upper case becomes lower case.
    Domain, host_name
}

fn host_name(text: &str) -> Result<String, Invalid> {
    if text.is_empty() || text.len() > MAX_LENGTH {
        return Err(Invalid("must be a host name of 1 to 253 characters"));
    }
    if !text.is_ascii() {
        return Err(Invalid("must be in ASCII; write an international name as xn--…"));
    }
    if text.contains('*') {
        return Err(Invalid("must not be a wildcard; name each host"));
    }
    if text.contains([':', '/']) {
        return Err(Invalid("must be a host name alone, without scheme, port or path"));
    }
    let lower = text.to_ascii_lowercase();
    if !lower.split('.').all(|l| is_label(l) && !l.contains('_')) {
        return Err(Invalid(
            "must be labels of letters, digits and dashes with dots between, such as www.example.com",
        ));
    }
    // What ends in a number is read as an address (WHATWG URL, "ends in a number").
    let last = lower.rsplit('.').next().unwrap_or_default();
    if last.bytes().all(|b| b.is_ascii_digit()) || last.starts_with("0x") {
        return Err(Invalid("must be a host name, not an address"));
    }
    if !lower.contains('.') {
        return Err(Invalid("must have a dot, such as www.example.com"));
    }
    Ok(lower)
}

/// Whether it is the host of a URL: a name, or an IPv6 address in brackets.
pub fn is_host(text: &str) -> bool {
    match text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        None => text.len() <= MAX_LENGTH && text.split('.').all(is_label),
    }
}

/// A label of a host name; an underscore, which some machines have, is for the caller to judge.
fn is_label(label: &str) -> bool {
    (1..=MAX_LABEL).contains(&label.len())
        && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        && !label.starts_with('-')
        && !label.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_domain_is_a_host_name_with_a_dot_in_lower_case() {
        for (text, kept) in [
            ("example.com", "example.com"),
            ("WWW.Example.COM", "www.example.com"),
            ("a.b.c.d", "a.b.c.d"),
            ("xn--bcher-kva.example", "xn--bcher-kva.example"),
            ("3com.example", "3com.example"),
            ("shop.localhost", "shop.localhost"),
        ] {
            assert_eq!(Domain::parse(text).map(|d| d.as_str().to_owned()), Ok(kept.to_owned()));
        }
        let long_label = format!("{}.example", "a".repeat(64));
        let long = format!("{}example.com", "a.".repeat(122));
        for bad in [
            "",
            "localhost",
            "a..b",
            ".a.b",
            "a.b.",
            "-a.b",
            "a-.b",
            "a_b.c",
            "*.example.com",
            "https://a.b",
            "a.b:80",
            "a.b/c",
            "127.0.0.1",
            "1.2.3.0x4",
            "[::1]",
            "bücher.example",
            "a b.c",
            "a.b\n",
            "{env.HOME}.b",
            &long_label,
            &long,
        ] {
            assert!(Domain::parse(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn what_is_read_holds_nothing_that_a_configuration_could_misread(text in "\\PC{0,80}") {
            if let Ok(domain) = Domain::parse(&text) {
                let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.';
                prop_assert!(domain.as_str().bytes().all(plain));
                prop_assert_eq!(Domain::parse(domain.as_str()), Ok(domain.clone()));
            }
        }
    }
}
