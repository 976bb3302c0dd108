//! Encryption at rest (P14 to P18): what the database holds, and which key opens it.

use crate::harness::sealed::{Database, first_app, forge_v1, key_id};
use crate::harness::server::mode;
use crate::harness::{Finished, Server, Setup, hex, random};
use data_encoding::{BASE64, BASE64URL_NOPAD};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

const TOKEN: &str = "ghp_a-token-for-the-repository";

/// A server with a known key, an app with a token and variables, and a saved GitHub token.
fn filled(key: &[u8; 32]) -> (Server, String) {
    let server = Setup::new().env("BETTER_PAAS_SECRET_KEY", &hex(key)).start();
    let id = first_app(&server, "shop", Some(TOKEN));
    let mut owner = server.owner();
    let env = json!({"env": [
        {"name": "PLAIN", "value": "plain-value", "secret": false},
        {"name": "HIDDEN", "value": "hidden-value", "secret": true},
        {"name": "EMPTY", "value": "", "secret": false},
    ]});
    owner.put(&format!("/api/apps/{id}/env"), &env).expect(200);
    let github = json!({"token": "ghp_saved-for-all"});
    let status = owner.put("/api/settings/github-token", &github).status;
    assert!(matches!(status, 200 | 204), "{status}");
    let address = json!({"url": "https://hooks.example.com/secret"});
    owner.put("/api/settings/notifications", &address).expect(200);
    (server, id)
}

/// All files of a data directory with their content, without sockets and the lock.
fn content(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(directory).unwrap().flatten();
    let files = entries.filter(|e| e.file_type().unwrap().is_file());
    let named = files.map(|e| (e.file_name().to_string_lossy().into_owned(), e.path()));
    named.filter(|(n, _)| n != "lock").map(|(n, p)| (n, std::fs::read(p).unwrap())).collect()
}

#[track_caller]
fn does_not_start(setup: &Setup, words: &[&str]) -> Finished {
    let finished = setup.run(&[]);
    assert_eq!(finished.code, Some(1), "{finished:?}");
    let last = finished.stderr.lines().last().unwrap_or_default();
    for word in words {
        assert!(last.contains(word), "{word:?} is not in {finished:?}");
    }
    finished
}

#[test]
fn p14_every_secret_is_an_envelope_in_the_database() {
    let key = random();
    let (server, id) = filled(&key);
    let database = Database::of(server.stop());
    let stored = [
        database.git_token(&id),
        database.env(&id, "PLAIN"),
        database.env(&id, "HIDDEN"),
        database.env(&id, "EMPTY"),
        database.text("SELECT value FROM settings WHERE name = 'github_token'"),
        database.text("SELECT value FROM settings WHERE name = 'notification_url'"),
    ];
    for (envelope, clear) in stored.iter().zip([TOKEN.len(), 11, 12, 0, 17, 32]) {
        let parts: Vec<&str> = envelope.splitn(4, ':').collect();
        let [prefix, version, id, sealed] = parts[..] else { panic!("{envelope}") };
        assert_eq!((prefix, version, id), ("enc", "v2", key_id(&key).as_str()));
        let bytes = BASE64.decode(sealed.as_bytes()).expect("base64");
        assert_eq!(bytes.len(), 12 + clear + 16, "96-bit nonce, ciphertext, 128-bit tag");
    }
}

#[test]
fn p14_each_write_has_a_fresh_nonce() {
    let (server, id) = filled(&random());
    let mut nonces = std::collections::BTreeSet::new();
    let path = format!("/api/apps/{id}/env");
    let mut owner = server.owner();
    for _ in 0..20 {
        let env = json!({"env": [{"name": "A", "value": "same"}, {"name": "B", "value": "same"}]});
        owner.put(&path, &env).expect(200);
        let database = Database::beside(&server);
        for name in ["A", "B"] {
            let envelope = database.env(&id, name);
            let sealed = envelope.rsplit(':').next().unwrap();
            nonces.insert(BASE64.decode(sealed.as_bytes()).unwrap()[..12].to_vec());
        }
    }
    assert_eq!(nonces.len(), 40);
}

#[test]
fn p15_the_key_comes_from_the_environment_then_the_credential_then_a_file() {
    let (first, second) = (random::<32>(), random::<32>());
    let used = |server: &Server| {
        let id = first_app(server, "shop", Some(TOKEN));
        Database::beside(server).git_token(&id).split(':').nth(2).unwrap().to_owned()
    };
    let credential = |setup: &Setup, key: &str| {
        let directory = setup.home().join("credentials");
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(directory.join("better_paas_secret_key"), key).unwrap();
        directory.to_str().unwrap().to_owned()
    };

    for text in [hex(&first), hex(&first).to_uppercase(), BASE64.encode(&first)] {
        let setup = Setup::new();
        let directory = credential(&setup, &hex(&second));
        let setup = setup.env("CREDENTIALS_DIRECTORY", &directory);
        let server = setup.env("BETTER_PAAS_SECRET_KEY", &text).start();
        assert_eq!(used(&server), key_id(&first), "the environment wins");
        assert!(!server.data().join("secret.key").exists());
    }
    for text in [format!("{}\n", hex(&second)), BASE64.encode(&second)] {
        let setup = Setup::new();
        let directory = credential(&setup, &text);
        let server = setup.env("CREDENTIALS_DIRECTORY", &directory).start();
        assert_eq!(used(&server), key_id(&second), "the credential wins");
        assert!(!server.data().join("secret.key").exists());
    }
    let server = Server::start();
    let file = server.data().join("secret.key");
    assert_eq!(mode(&file), 0o600);
    let (before, id) = (std::fs::read(&file).unwrap(), used(&server));
    let server = server.restart();
    assert_eq!(std::fs::read(&file).unwrap(), before);
    server.owner().get("/api/apps").expect(200);
    assert_ne!(id, used(&Server::start()), "another installation, another key");
}

#[test]
fn p15_a_value_that_is_no_key_is_refused_without_repeating_it() {
    let short = "c0ffee".repeat(10);
    let long = "c0ffee".repeat(11);
    for bad in ["passphrase", "zz", &short, &long, &BASE64.encode(&[7; 31])] {
        let setup = Setup::new().env("BETTER_PAAS_SECRET_KEY", bad);
        let finished = does_not_start(&setup, &["BETTER_PAAS_SECRET_KEY", "32"]);
        assert!(!finished.stderr.contains(bad), "{finished:?}");
        assert!(!setup.data().join("better-paas.db").exists());
    }
}

#[test]
fn p16_an_envelope_that_was_moved_does_not_open() {
    let (server, id) = filled(&random());
    let other = first_app(&server, "other", None);
    let env = json!({"env": [{"name": "PLAIN", "value": "mine"}, {"name": "NEXT", "value": "x"}]});
    server.owner().put(&format!("/api/apps/{other}/env"), &env).expect(200);
    let database = Database::of(server.stop());
    let from_row = database.env(&id, "PLAIN");
    let from_column = database.git_token(&id);
    for moved in [&from_row, &from_column, &database.env(&other, "NEXT")] {
        database.set_env(&other, "PLAIN", moved);
        let server = database.setup().start();
        let path = format!("/api/apps/{other}/env");
        let answer = server.owner().get(&path).expect(500);
        for word in ["env", "value", other.as_str(), "PLAIN"] {
            assert!(answer.message().contains(word), "{}", answer.text());
        }
        assert!(!answer.text().contains("plain-value") && !answer.text().contains(TOKEN));
        // The rest of the house stands.
        server.owner().get("/api/apps").expect(200);
        server.owner().get(&format!("/api/apps/{id}/env")).expect(200);
        drop(server.stop());
    }
}

#[test]
fn p16_a_git_token_opens_for_the_host_that_it_was_given_for_only() {
    let (server, id) = filled(&random());
    let database = Database::of(server.stop());
    database.run("UPDATE apps SET git_repo = 'https://evil.example/shop.git'");
    let server = database.setup().start();
    // It is opened when a log is to be shown, to be kept out of it.
    server.owner().get(&format!("/api/apps/{id}/log")).expect(200);
    server.wait_for_log("git_token");
    assert!(server.log().contains(&id) && !server.log().contains(TOKEN), "{}", server.log());
}

#[test]
fn p16_pointing_an_app_at_another_host_drops_the_token_unless_it_is_given_again() {
    let (server, id) = filled(&random());
    let mut owner = server.owner();
    let path = format!("/api/apps/{id}");
    let mut has_token = |change: Value| {
        let answer = owner.patch(&path, &change).expect(200).json();
        assert_eq!(answer.get("gitToken"), None, "write-only");
        answer["hasGitToken"].as_bool().unwrap()
    };
    assert!(has_token(json!({"gitRepo": "https://git.example.com/another/path.git"})));
    assert!(has_token(json!({"gitRepo": "https://GIT.example.com/case.git"})), "the same host");
    assert!(!has_token(json!({"gitRepo": "https://evil.example/shop.git"})));
    assert!(!has_token(json!({"gitRepo": "https://git.example.com/shop.git"})), "gone for good");
    let given = json!({"gitRepo": "https://evil.example/shop.git", "gitToken": TOKEN});
    assert!(has_token(given));
    assert!(!has_token(json!({"gitRepo": "http://evil.example/shop.git"})), "not over plain HTTP");
    has_token(json!({"gitRepo": "https://evil.example/shop.git", "gitToken": TOKEN}));
    assert!(!has_token(json!({"gitRepo": "https://evil.example:8443/shop.git"})), "another port");
}

#[test]
fn p17_cleartext_and_older_envelopes_are_read_and_upgraded_on_the_next_write() {
    let key = random();
    let (server, id) = filled(&key);
    let database = Database::of(server.stop());
    database.set_env(&id, "PLAIN", "legacy cleartext");
    database.set_env(&id, "EMPTY", &forge_v1(&key, "from an earlier install"));
    database.run(&format!("UPDATE apps SET git_token = '{TOKEN}'"));
    let server = database.setup().start();
    let mut owner = server.owner();
    let path = format!("/api/apps/{id}/env");
    let shown = owner.get(&path).expect(200).json();
    let value = |name: &str| {
        let all = shown["env"].as_array().unwrap();
        all.iter().find(|e| e["name"] == name).unwrap()["value"].clone()
    };
    assert_eq!(value("PLAIN"), "legacy cleartext");
    assert_eq!(value("EMPTY"), "from an earlier install");

    // Reading alone changes nothing; a write that keeps the values upgrades them.
    let beside = Database::beside(&server);
    assert_eq!(beside.env(&id, "PLAIN"), "legacy cleartext");
    let kept = json!({"env": [
        {"name": "PLAIN"}, {"name": "EMPTY"}, {"name": "HIDDEN", "secret": true}
    ]});
    owner.put(&path, &kept).expect(200);
    owner.patch(&format!("/api/apps/{id}"), &json!({"branch": "next"})).expect(200);
    for stored in [beside.env(&id, "PLAIN"), beside.env(&id, "EMPTY"), beside.git_token(&id)] {
        assert!(stored.starts_with(&format!("enc:v2:{}:", key_id(&key))), "{stored}");
    }
    let again = owner.get(&path).expect(200).json();
    assert_eq!(again["env"][0]["value"], "legacy cleartext");
    assert_eq!(again["env"][1]["value"], "from an earlier install");
}

#[test]
fn p17_an_envelope_that_is_none_is_an_error_and_not_cleartext() {
    let (server, id) = filled(&random());
    let database = Database::of(server.stop());
    for bad in ["enc:", "enc:v2:", "enc:v2:00000000:AAAA", "enc:v3:x:y", "enc:v1:!!!!"] {
        database.set_env(&id, "PLAIN", bad);
        let server = database.setup().start();
        server.owner().get(&format!("/api/apps/{id}/env")).expect(500);
        drop(server.stop());
        assert_eq!(database.env(&id, "PLAIN"), bad);
    }
}

#[test]
fn p18_a_wrong_key_is_found_at_start_and_changes_nothing() {
    let right = random();
    let wrong = hex(&random::<32>());
    // After an orderly end, and after a kill, which leaves writes beside the database.
    for killed in [false, true] {
        let (mut server, _) = filled(&right);
        let setup = server.setup().clone();
        if killed {
            server.kill9();
        } else {
            server.stop();
        }
        let all = || {
            let mut files = content(&setup.data());
            assert_eq!(files.contains_key("better-paas.db-wal"), killed);
            // An index that SQLite makes anew.
            files.remove("better-paas.db-shm");
            files
        };
        let before = all();
        let other = setup.clone().env("BETTER_PAAS_SECRET_KEY", &wrong);
        does_not_start(&other, &["BETTER_PAAS_SECRET_KEY", &key_id(&right)]);
        let without = setup.clone().without("BETTER_PAAS_SECRET_KEY");
        does_not_start(&without, &["secret.key"]);
        let after = all();
        assert_eq!(before.keys().collect::<Vec<_>>(), after.keys().collect::<Vec<_>>());
        for (name, bytes) in before {
            assert!(after[&name] == bytes, "{name} has changed");
        }
        setup.start().owner().get("/api/apps").expect(200);
    }
}

#[test]
fn p18_a_lost_key_file_is_not_replaced_by_a_new_one() {
    let server = Server::start();
    first_app(&server, "shop", Some(TOKEN));
    let setup = server.stop();
    let file = setup.data().join("secret.key");
    let key = std::fs::read(&file).unwrap();
    std::fs::remove_file(&file).unwrap();
    does_not_start(&setup, &["secret.key"]);
    assert!(!file.exists());
    std::fs::write(&file, [&key[..key.len() - 9], b"\n"].concat()).unwrap();
    does_not_start(&setup, &["secret.key"]);
    std::fs::write(&file, &key).unwrap();
    setup.start().owner().get("/api/apps").expect(200);
}

/// An envelope with one bit of its tag flipped.
fn damaged(envelope: &str) -> String {
    let (head, sealed) = envelope.rsplit_once(':').unwrap();
    let mut bytes = BASE64.decode(sealed.as_bytes()).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    format!("{head}:{}", BASE64.encode(&bytes))
}

#[test]
fn p18_a_value_that_does_not_open_is_never_empty_and_never_overwritten_by_another_save() {
    let (server, id) = filled(&random());
    let database = Database::of(server.stop());
    let token = damaged(&database.git_token(&id));
    let value = damaged(&database.env(&id, "PLAIN"));
    database.set_env(&id, "PLAIN", &value);
    database.run(&format!("UPDATE apps SET git_token = '{token}'"));
    let server = database.setup().start();
    let mut owner = server.owner();
    let path = format!("/api/apps/{id}");
    let answer = owner.get(&format!("{path}/env")).expect(500);
    assert!(answer.message().contains("PLAIN"), "{}", answer.text());
    owner.patch(&path, &json!({"branch": "main", "healthPath": "/ok"})).expect(200);
    assert_eq!(owner.get(&path).expect(200).json()["hasGitToken"], true);
    let kept = json!({"env": [{"name": "PLAIN"}, {"name": "NEW", "value": "1"}]});
    owner.put(&format!("{path}/env"), &kept);
    let beside = Database::beside(&server);
    assert_eq!(beside.git_token(&id), token);
    assert_eq!(beside.env(&id, "PLAIN"), value);
    // Giving the value again mends it.
    let mended = json!({"env": [{"name": "PLAIN", "value": "mended"}]});
    owner.put(&format!("{path}/env"), &mended).expect(200);
    assert_eq!(owner.get(&format!("{path}/env")).json()["env"][0]["value"], "mended");
}

/// The forms in which a secret could lie in a file. Base64 is searched without its last characters, which depend on
/// what follows.
fn forms(secret: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let whole = &secret[..secret.len() / 3 * 3];
    let percent: String = secret
        .iter()
        .map(|b| match b {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                char::from(*b).to_string()
            }
            other => format!("%{other:02X}"),
        })
        .collect();
    vec![
        ("clear", secret.to_vec()),
        ("base64", BASE64.encode(whole).into_bytes()),
        ("base64url", BASE64URL_NOPAD.encode(whole).into_bytes()),
        ("hex", hex(secret).into_bytes()),
        ("HEX", hex(secret).to_uppercase().into_bytes()),
        ("URL", percent.to_lowercase().into_bytes()),
        ("URL", percent.into_bytes()),
    ]
}

/// A backup is such a copy (P29), with neither the token nor the key (P7).
fn put_a_backup_beside(server: &Server) {
    let backup = server.setup().home().join("backup.tgz");
    let made = server.operator(&["backup", backup.to_str().unwrap()]);
    assert_eq!(made.code, Some(0), "{made:?}");
    let unpacked = Command::new("gzip").arg("-dc").arg(&backup).output().unwrap().stdout;
    std::fs::write(server.data().join("backup.tar"), unpacked).unwrap();
}

#[test]
fn p20_a_copy_of_the_database_holds_nothing_that_lets_anybody_in() {
    let key = random::<32>();
    let (server, id) = filled(&key);
    let mut owner = server.owner();
    let pem = "-----BEGIN KEY-----\nMIIBVQIBADANBgkq/+hkiG9w0=\n-----END KEY-----";
    let address = "postgres://shop:p%ss/w?rd@db.example/shop";
    let path = format!("/api/apps/{id}/env");
    // Values that were replaced or removed must not stay behind in free pages either.
    for round in 0..5 {
        let env = json!({"env": [
            {"name": "PEM", "value": pem, "secret": true},
            {"name": "DATABASE_URL", "value": address},
            {"name": "OLD", "value": format!("replaced-value-{round}")},
        ]});
        owner.put(&path, &env).expect(200);
        let ticket = owner.post("/api/ws-ticket", &json!({})).expect(200).json();
        assert!(ticket["ticket"].is_string());
    }
    owner.delete("/api/settings/github-token");
    owner.patch(&format!("/api/apps/{id}"), &json!({"gitToken": "ghp_second-token"})).expect(200);
    let ticket = owner.post("/api/ws-ticket", &json!({})).expect(200).json();
    let ticket = ticket["ticket"].as_str().unwrap();

    let hook = format!("/api/apps/{id}/webhook");
    let hooks = [(); 2].map(|()| {
        let made = owner.request("POST", &hook, None).expect(200).json();
        made["secret"].as_str().expect("a secret").to_owned()
    });
    let [renewed, in_force] = hooks.each_ref().map(|h| h.strip_prefix("whsec_").expect("base64"));

    let admin = server.token();
    let secrets: &[&[u8]] = &[
        renewed.as_bytes(),
        in_force.as_bytes(),
        admin.as_bytes(),
        &admin.as_bytes()[6..],
        ticket.as_bytes(),
        TOKEN.as_bytes(),
        b"ghp_second-token",
        b"ghp_saved-for-all",
        b"plain-value",
        b"hidden-value",
        b"replaced-value",
        pem.as_bytes(),
        b"MIIBVQIBADANBgkq",
        address.as_bytes(),
        b"p%ss/w?rd",
        &key,
    ];
    let mut copied = 0;
    put_a_backup_beside(&server);
    let names = ["backup.tar", "better-paas.db", "better-paas.db-wal", "better-paas.db-shm"];
    for name in names {
        let Ok(bytes) = std::fs::read(server.data().join(name)) else { continue };
        copied += bytes.len();
        for secret in secrets {
            for (form, pattern) in forms(secret) {
                let found = bytes.windows(pattern.len()).any(|w| w == pattern);
                assert!(!found, "{name} holds {:?} in {form}", String::from_utf8_lossy(secret));
            }
        }
    }
    let name_is_there = ["better-paas.db", "better-paas.db-wal"].iter().any(|n| {
        let bytes = std::fs::read(server.data().join(n)).unwrap_or_default();
        bytes.windows(20).any(|w| w == b"https://git.example.")
    });
    assert!(copied > 10_000 && name_is_there, "the scan finds what is there");
}
