//! Feeds hostile text to the vault: it never panics, and nothing that nobody sealed
//! opens as an envelope.
#![no_main]

use better_paas::vault::key::Key;
use better_paas::vault::{Form, Place, Vault};
use std::sync::LazyLock;

static VAULT: LazyLock<Vault> = LazyLock::new(|| Vault::new(Key::parse(&"5a".repeat(32)).unwrap()));

libfuzzer_sys::fuzz_target!(|text: &str| {
    let place = Place { table: "apps", column: "git_token", row: "1", context: "" };
    if let Ok(opened) = VAULT.open(&place, text) {
        assert!(matches!(opened.form, Form::Cleartext) && !text.starts_with("enc:"));
    }
});
