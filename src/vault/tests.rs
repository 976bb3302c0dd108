//! What the vault promises.

use super::key::load;
use super::*;
use crate::data_dir::DataDir;
use data_encoding::{BASE64, BASE64_NOPAD, BASE64URL, BASE64URL_NOPAD, HEXLOWER, HEXUPPER};
use proptest::prelude::*;
use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use tempfile::{TempDir, tempdir};

const HEX: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
const PLACE: Place<'_> =
    Place { table: "apps", column: "git_token", row: "abcdefghij", context: "https://github.com" };

fn vault() -> Vault {
    Vault::new(Key::parse(HEX).unwrap())
}

fn other_vault() -> Vault {
    Vault::new(Key::parse(&HEX.replace('0', "1")).unwrap())
}

/// As earlier installs wrote: nothing authenticated with it.
fn sealed_v1(vault: &Vault, clear: &str) -> String {
    let sealed = envelope::seal(&vault.cipher, [9; 12], b"", clear.as_bytes()).unwrap();
    format!("enc:v1:{}", BASE64.encode(&sealed))
}

fn data() -> (TempDir, DataDir) {
    let top = tempdir().unwrap();
    let data = DataDir::open(&top.path().join("data")).unwrap();
    (top, data)
}

#[test]
fn it_can_be_shared_between_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<Vault>();
}

fn any_text() -> impl Strategy<Value = String> {
    proptest::collection::vec(any::<char>(), 0..60).prop_map(String::from_iter)
}

#[test]
fn p16_the_stored_form_has_version_key_id_and_base64() {
    let vault = vault();
    let stored = vault.seal(&PLACE, "hunter2").unwrap();
    let parts: Vec<_> = stored.split(':').collect();
    assert_eq!(parts[..3], ["enc", "v2", vault.key_id()]);
    assert_eq!(BASE64.decode(parts[3].as_bytes()).unwrap().len(), 12 + 7 + 16);
    assert!(!stored.contains("hunter2") && parts.len() == 4);
}

#[test]
fn the_key_id_is_the_one_that_was_specified() {
    // Worked out apart from this program:
    // printf 'better-paas key id' | cat - key.bin | sha256sum | cut -c1-8
    assert_eq!(vault().key_id(), "a0cd0c45");
    assert_eq!(format!("{:?}", Key::parse(HEX).unwrap()), "Key(a0cd0c45)");
}

#[test]
fn p14_every_write_has_a_fresh_nonce() {
    let vault = vault();
    let nonces: HashSet<_> = (0..1000)
        .map(|_| {
            let stored = vault.seal(&PLACE, "same").unwrap();
            let sealed = BASE64.decode(stored.rsplit(':').next().unwrap().as_bytes()).unwrap();
            sealed[..12].to_vec()
        })
        .collect();
    assert_eq!(nonces.len(), 1000);
}

#[test]
fn p17_earlier_forms_are_read_and_told_apart() {
    let vault = vault();
    let v1 = sealed_v1(&vault, "ghp_x");
    let opened = vault.open(&PLACE, &v1).unwrap();
    assert_eq!((opened.secret.expose(), opened.form), ("ghp_x", Form::V1));
    for clear in ["", "ghp_x", "Enc:v2:x", " enc:v1:x", "enc", "encode:x"] {
        let opened = vault.open(&PLACE, clear).unwrap();
        assert_eq!((opened.secret.expose(), opened.form), (clear, Form::Cleartext));
    }
    assert_eq!(other_vault().open(&PLACE, &v1).unwrap_err().why, Why::NotOpened);
}

#[test]
fn p17_an_envelope_that_another_program_wrote_opens() {
    // Made with Python's `cryptography`, key as above, nonce 00..0b, the text "päss".
    let v1 = "enc:v1:AAECAwQFBgcICQoLZtsRRTN4y9do0g62ikpYMImJY+eu";
    let v2 = "enc:v2:a0cd0c45:AAECAwQFBgcICQoLZtsRRTNfMoH9DNnxArZ90jYHg5ys";
    let opened = vault().open(&PLACE, v1).unwrap();
    assert_eq!((opened.secret.expose(), opened.form), ("päss", Form::V1));
    let opened = vault().open(&PLACE, v2).unwrap();
    assert_eq!((opened.secret.expose(), opened.form), ("päss", Form::V2));
}

#[test]
fn p18_what_claims_to_be_encrypted_and_is_not_is_an_error() {
    let vault = vault();
    let id = vault.key_id();
    let good = vault.seal(&PLACE, "x").unwrap();
    for (bad, why) in [
        ("enc:".to_owned(), Why::UnknownForm),
        ("enc:x".to_owned(), Why::UnknownForm),
        (good.replace("v2", "v3"), Why::UnknownForm),
        ("enc:v1:".to_owned(), Why::NotOpened),
        ("enc:v1:AAAA".to_owned(), Why::NotOpened),
        ("enc:v1:not base64".to_owned(), Why::NotOpened),
        (good.replace("v2", "v1"), Why::NotOpened),
        (good.replace(&format!("v2:{id}"), "v1"), Why::NotOpened),
        ("enc:v2:".to_owned(), Why::NotOpened),
        (format!("enc:v2:{id}"), Why::NotOpened),
        (format!("enc:v2:{id}:"), Why::NotOpened),
        (format!("enc:v2:{id}:AAAA"), Why::NotOpened),
        (good.replace(id, &id.to_uppercase()), Why::NotOpened),
        (good.replace(id, "1234567"), Why::NotOpened),
        (format!("{good}="), Why::NotOpened),
        (format!("{good} "), Why::NotOpened),
        (format!("{good}\n"), Why::NotOpened),
        (sealed_v1(&vault, "x").replace("v1", &format!("v2:{id}")), Why::NotOpened),
        (good.replace(id, "01234567"), Why::OtherKey("01234567".to_owned())),
    ] {
        let error = vault.open(&PLACE, &bad).unwrap_err();
        assert_eq!(error.why, why, "{bad}");
        let text = error.to_string();
        assert!(["apps", "git_token", "abcdefghij"].iter().all(|w| text.contains(w)), "{text}");
    }
    // Bytes that open and are no text.
    let sealed = envelope::seal(&vault.cipher, [1; 12], b"", b"\xff").unwrap();
    let stored = format!("enc:v1:{}", BASE64.encode(&sealed));
    assert_eq!(vault.open(&PLACE, &stored).unwrap_err().why, Why::NotOpened);
}

#[test]
fn p18_a_wrong_key_is_found_by_the_canary_and_the_wanted_one_is_named() {
    let canary = vault().seal(&Place::CANARY, "better-paas").unwrap();
    assert_eq!(vault().open(&Place::CANARY, &canary).unwrap().secret.expose(), "better-paas");
    let error = other_vault().open(&Place::CANARY, &canary).unwrap_err();
    assert_eq!(error.why, Why::OtherKey(vault().key_id().to_owned()));
    assert!(error.to_string().contains(vault().key_id()), "{error}");
}

#[test]
fn p16_a_value_opens_in_its_own_place_only() {
    let vault = vault();
    let stored = vault.seal(&PLACE, "x").unwrap();
    for place in [
        Place { table: "env", ..PLACE },
        Place { column: "value", ..PLACE },
        Place { row: "abcdefghik", ..PLACE },
        Place { context: "http://github.com", ..PLACE },
        Place { context: "", ..PLACE },
        // The same letters, divided in another way.
        Place { table: "appsg", column: "it_token", ..PLACE },
        Place { table: "", column: "appsgit_token", ..PLACE },
        Place { row: "abcdefghijhttps://github.com", context: "", ..PLACE },
    ] {
        assert_eq!(vault.open(&place, &stored).unwrap_err().why, Why::NotOpened, "{place:?}");
    }
}

proptest! {
    #[test]
    fn any_text_comes_back_as_it_was(clear in any_text(), row in any_text()) {
        let vault = vault();
        let place = Place { row: &row, ..PLACE };
        let stored = vault.seal(&place, &clear).unwrap();
        let opened = vault.open(&place, &stored).unwrap();
        prop_assert_eq!((opened.secret.expose(), opened.form), (clear.as_str(), Form::V2));
        prop_assert!(stored.is_ascii());
    }

    #[test]
    fn p16_two_places_never_authenticate_the_same(
        one in proptest::array::uniform4("[ab\\x00]{0,4}"),
        other in proptest::array::uniform4("[ab\\x00]{0,4}"),
    ) {
        let place = |p: &[String; 4]| envelope::place_bytes(&Place {
            table: &p[0], column: &p[1], row: &p[2], context: &p[3],
        });
        prop_assert_eq!(place(&one) == place(&other), one == other);
    }

    #[test]
    fn no_text_makes_it_panic(stored in "(enc:(v[123]:([0-9a-f]{8}:)?)?)?[A-Za-z0-9+/=]{0,60}") {
        let _ = vault().open(&PLACE, &stored);
    }
}

#[test]
fn p16_no_byte_of_an_envelope_can_be_changed() {
    let vault = vault();
    let stored = vault.seal(&PLACE, "some secret").unwrap();
    for at in 0..stored.len() {
        for flip in 1..=127u8 {
            let mut bytes = stored.clone().into_bytes();
            bytes[at] ^= flip;
            let Ok(changed) = String::from_utf8(bytes) else { continue };
            match vault.open(&PLACE, &changed) {
                Err(_) => {}
                // Without its prefix it is a text like any other, never the secret.
                Ok(opened) => {
                    assert!(at < 4 && opened.form == Form::Cleartext, "{at} {flip}");
                    assert_eq!(opened.secret.expose(), changed);
                }
            }
        }
    }
    for length in 4..stored.len() {
        assert!(vault.open(&PLACE, &stored[..length]).is_err(), "{length}");
    }
}

#[test]
fn p15_a_key_is_read_in_hex_and_base64_of_either_kind() {
    let bytes: [u8; 32] = std::array::from_fn(|i| 255 - u8::try_from(i).unwrap());
    let expected = Key::parse(&HEXLOWER.encode(&bytes)).unwrap();
    assert_eq!(expected.bytes(), &bytes);
    for encoding in [HEXUPPER, BASE64, BASE64_NOPAD, BASE64URL, BASE64URL_NOPAD] {
        let text = encoding.encode(&bytes);
        for text in [text.clone(), format!("{text}\n"), format!(" {text}\r\n")] {
            assert_eq!(Key::parse(&text).unwrap().bytes(), &bytes, "{text}");
        }
    }
    let short = BASE64.encode(&bytes[..31]);
    let long = BASE64.encode(&[bytes.as_slice(), &[0]].concat());
    let twice = format!("{}=", BASE64.encode(&bytes));
    for bad in [
        "",
        "hunter2",
        &HEX[1..],
        &format!("{HEX}0"),
        &HEX.replace('0', "g"),
        &short,
        &long,
        &twice,
    ] {
        assert!(Key::parse(bad).is_none(), "{bad}");
    }
}

#[test]
fn p15_environment_credential_file_in_that_order() {
    let (top, data) = data();
    let keys = [1u8, 2, 3].map(|n| HEXLOWER.encode(&[n; 32]));
    let env = Secret::new(keys[0].clone());
    let credentials = top.path().join("credentials");
    fs::create_dir(&credentials).unwrap();
    let found = |env: Option<&Secret>, directory: Option<&Path>| {
        load(env, directory, &data, false).map(|(key, source)| (key.to_hex(), source))
    };
    data.write_secret("secret.key", format!("{}\n", keys[2]).as_bytes()).unwrap();
    let file = format!("the file {}", data.join("secret.key").display());
    let (key, source) = found(None, Some(&credentials)).unwrap();
    assert_eq!((key.expose(), source), (keys[2].as_str(), file.clone()), "no such credential");
    fs::write(credentials.join("better_paas_secret_key"), &keys[1]).unwrap();
    let (key, source) = found(None, Some(&credentials)).unwrap();
    assert_eq!(
        (key.expose(), source),
        (keys[1].as_str(), "the systemd credential better_paas_secret_key".to_owned())
    );
    let (key, source) = found(Some(&env), Some(&credentials)).unwrap();
    assert_eq!(
        (key.expose(), source),
        (keys[0].as_str(), "the environment variable BETTER_PAAS_SECRET_KEY".to_owned())
    );
    assert_eq!(found(None, None).unwrap().1, file);

    // What is there and bad is an error; nothing else is tried instead.
    fs::write(credentials.join("better_paas_secret_key"), "hunter2hunter2").unwrap();
    data.write_secret("secret.key", b"").unwrap();
    let bad = Secret::new("hunter2hunter2".to_owned());
    for (env, directory, name) in [
        (Some(&bad), Some(credentials.as_path()), "BETTER_PAAS_SECRET_KEY"),
        (None, Some(credentials.as_path()), "better_paas_secret_key"),
        (None, None, "secret.key"),
    ] {
        let error = found(env, directory).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("does not hold a key")
                && text.contains(name)
                && !text.contains("hunter2"),
            "{text}"
        );
    }
    fs::remove_file(credentials.join("better_paas_secret_key")).unwrap();
    fs::create_dir(credentials.join("better_paas_secret_key")).unwrap();
    let error = found(None, Some(&credentials)).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("which should hold the key, cannot be read"), "{text}");
}

#[test]
fn p15_a_key_is_made_on_first_run_only() {
    let (_top, data) = data();
    let error = load(None, None, &data, false).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("the key to its secrets is not"), "{text}");
    for name in ["BETTER_PAAS_SECRET_KEY", "better_paas_secret_key", "secret.key"] {
        assert!(text.contains(name), "{text}");
    }
    assert!(!data.join("secret.key").exists());
    let (made, source) = load(None, None, &data, true).unwrap();
    assert_eq!(source, format!("the file {}", data.join("secret.key").display()));
    let mode = fs::metadata(data.join("secret.key")).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);
    let (again, _) = load(None, None, &data, true).unwrap();
    assert_eq!(again.to_hex(), made.to_hex());
    let (_other_top, other) = self::data();
    assert_ne!(load(None, None, &other, true).unwrap().0.to_hex(), made.to_hex());
    let shown = format!("{made:?}");
    assert!(!shown.contains(made.to_hex().expose()));
}

/// One published case: what must come out, or that nothing may.
struct Case {
    name: String,
    key: Vec<u8>,
    nonce: Vec<u8>,
    aad: Vec<u8>,
    clear: Vec<u8>,
    hidden: Vec<u8>,
    tag: Vec<u8>,
    valid: bool,
}

fn check_case(case: &Case) {
    let key: [u8; 32] = case.key.as_slice().try_into().unwrap();
    let nonce: [u8; 12] = case.nonce.as_slice().try_into().unwrap();
    let cipher = Aes256Gcm::new(&key.into());
    let whole = [case.nonce.as_slice(), &case.hidden, &case.tag].concat();
    let opened = envelope::open(&cipher, &case.aad, &whole);
    if !case.valid {
        assert!(opened.is_none(), "{} opened", case.name);
        return;
    }
    assert_eq!(*opened.unwrap_or_else(|| panic!("{} does not open", case.name)), case.clear);
    let sealed = envelope::seal(&cipher, nonce, &case.aad, &case.clear).unwrap();
    assert_eq!(sealed, whole, "{}", case.name);
}

fn hex(text: &str) -> Vec<u8> {
    HEXLOWER.decode(text.as_bytes()).unwrap()
}

#[test]
fn the_cipher_agrees_with_the_cases_of_the_gcm_specification() {
    let key = "feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308";
    let zero = "0".repeat(64);
    let clear = "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72\
                 1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b391aafd255";
    let hidden = "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa\
                  8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662898015ad";
    let nonce = "cafebabefacedbaddecaf888";
    let aad = "feedfacedeadbeeffeedfacedeadbeefabaddad2";
    let zeros = "0".repeat(32);
    for (name, key, nonce, aad, clear, hidden, tag) in [
        ("case 13", &*zero, &zero[..24], "", "", "", "530f8afbc74536b9a963b4f1c4cb738b"),
        (
            "case 14",
            &*zero,
            &zero[..24],
            "",
            &*zeros,
            "cea7403d4d606b6e074ec5d3baf39d18",
            "d0d1c8a799996bf0265b98b5d48ab919",
        ),
        ("case 15", key, nonce, "", clear, hidden, "b094dac5d93471bdec1a502270e3cc6c"),
        (
            "case 16",
            key,
            nonce,
            aad,
            &clear[..120],
            &hidden[..120],
            "76fc6ece0f4e1768cddf8853bb2d551b",
        ),
    ] {
        let mut case = Case {
            name: name.to_owned(),
            key: hex(key),
            nonce: hex(nonce),
            aad: hex(aad),
            clear: hex(clear),
            hidden: hex(hidden),
            tag: hex(tag),
            valid: true,
        };
        check_case(&case);
        case.valid = false;
        case.tag[15] ^= 1;
        check_case(&case);
    }
}

/// Cases that Project Wycheproof has for our sizes; fewer would mean that the
/// file was not understood.
const WYCHEPROOF_CASES: usize = 66;

#[test]
fn the_cipher_passes_wycheproof() {
    let Some(path) = std::env::var_os("WYCHEPROOF_AES_GCM") else {
        println!(
            "no vectors: set WYCHEPROOF_AES_GCM to Wycheproof's aes_gcm_test.json to run them"
        );
        return;
    };
    let text = fs::read_to_string(path).unwrap();
    let file: serde_json::Value = serde_json::from_str(&text).unwrap();
    let mut run = 0;
    for group in file["testGroups"].as_array().unwrap() {
        let sizes = ["keySize", "ivSize", "tagSize"].map(|s| group[s].as_u64().unwrap());
        if sizes != [256, 96, 128] {
            continue;
        }
        for test in group["tests"].as_array().unwrap() {
            let field = |name: &str| hex(test[name].as_str().unwrap());
            check_case(&Case {
                name: format!("case {}", test["tcId"]),
                key: field("key"),
                nonce: field("iv"),
                aad: field("aad"),
                clear: field("msg"),
                hidden: field("ct"),
                tag: field("tag"),
                valid: test["result"] == "valid",
            });
            run += 1;
        }
    }
    assert!(run >= WYCHEPROOF_CASES, "only {run} cases were run");
}
