//! Feeds hostile bytes to the judgement on request heads: it never panics, and what
//! passes ends where it was found to end.
#![no_main]

use better_paas::gate::head::{NO_FIELDS, Scan, judge};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(Some(end)) = Scan::default().advance(bytes) {
        let mut room = NO_FIELDS;
        if let Ok(head) = judge(&bytes[..end], &mut room, 1024 * 1024) {
            assert!(bytes[..end].ends_with(b"\r\n\r\n"));
            assert!(head.target.starts_with('/') && head.length <= 1024 * 1024);
            assert!(!head.fields.iter().any(|f| f.name.eq_ignore_ascii_case("transfer-encoding")));
        }
    }
});
