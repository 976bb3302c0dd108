//! Updates: the new program proves itself on a copy of the database and changes nothing; a copy is kept before a schema
//! changes, and can be gone back to; databases of every version open (P30). What root does of it is tried with the
//! installation.

use crate::harness::program::run;
use crate::harness::sealed::{Database, first_app};
use crate::harness::{Finished, Server, Setup, hex};
use rusqlite::Connection;
use serde_json::json;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A stopped server with an app that has a variable, and its id.
fn stopped() -> (Setup, String) {
    let server = Setup::new().env("BETTER_PAAS_SECRET_KEY", &hex(&[7; 32])).start();
    let app = first_app(&server, "shop", Some("of-the-repository"));
    let env = json!({"env": [{"name": "HIDDEN", "value": "a-secret", "secret": true}]});
    server.owner().put(&format!("/api/apps/{app}/env"), &env).expect(200);
    (server.stop(), app)
}

/// Has a copy made, as an update does; its directory.
#[track_caller]
fn keep(setup: &Setup) -> PathBuf {
    let kept = setup.run(&["update-keep"]);
    assert_eq!(kept.code, Some(0), "{kept:?}");
    setup.data().join("before-update/newest")
}

fn prove(setup: &Setup, copy: &Path) -> Finished {
    setup.run(&["prove", copy.to_str().expect("UTF-8")])
}

/// Every file below a directory, without the lock, with its content.
fn files(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut left = vec![directory.to_owned()];
    while let Some(directory) = left.pop() {
        for entry in fs::read_dir(directory).expect("a directory").flatten() {
            let (path, kind) = (entry.path(), entry.file_type().expect("a kind"));
            if kind.is_dir() {
                left.push(path);
            } else if kind.is_file() && !path.ends_with("lock") {
                let content = fs::read(&path).expect("content");
                found.insert(path, content);
            }
        }
    }
    found
}

/// Changes a database behind the server's back.
#[track_caller]
fn change(database: &Path, sql: &str) {
    Connection::open(database).expect("a database").execute_batch(sql).expect(sql);
}

fn schema(database: &Path) -> i64 {
    let connection = Connection::open(database).expect("a database");
    connection.query_row("PRAGMA user_version", [], |row| row.get(0)).expect("a version")
}

#[test]
fn p30_a_program_proves_itself_on_a_copy_of_a_copy_and_changes_nothing() {
    let (setup, app) = stopped();
    let copy = keep(&setup);
    let database = copy.join("better-paas.db");
    // In the order of these, each on top of those before.
    let broken = [
        (format!("UPDATE env SET value = 'enc:v2:odd' WHERE app_id = '{app}'"), "table env"),
        ("PRAGMA user_version = 4".to_owned(), "already exists"),
        ("PRAGMA user_version = 99".to_owned(), "a newer version (schema 99"),
    ];
    let is_proved = |setup: &Setup, why: Option<&str>| {
        let before = files(&setup.data());
        let proved = prove(setup, &copy);
        match why {
            None => {
                let version = format!("ok {}\n", env!("CARGO_PKG_VERSION"));
                assert_eq!((proved.code, proved.stdout), (Some(0), version), "{}", proved.stderr);
            }
            Some(why) => {
                assert_eq!(proved.code, Some(1), "{why}");
                assert!(proved.stderr.contains(why), "{why}: {}", proved.stderr);
            }
        }
        assert!(files(&setup.data()) == before, "{why:?}: something has changed");
        assert!(!copy.join("proof").exists(), "{why:?}");
    };
    is_proved(&setup, None);
    let other = setup.clone().env("BETTER_PAAS_SECRET_KEY", &hex(&[8; 32]));
    is_proved(&other, Some("the encryption key does not open this database"));
    is_proved(&setup.clone().env("ROUTER", "maybe"), Some("ROUTER"));
    for (sql, why) in broken {
        change(&database, &sql);
        is_proved(&setup, Some(why));
    }
    fs::remove_file(&database).expect("removed");
    is_proved(&setup, Some("better-paas.db is no use"));
}

#[test]
fn p30_a_proof_is_no_business_of_the_server_that_runs() {
    let server = Server::start();
    let app = first_app(&server, "shop", None);
    let copy = keep(server.setup());
    let proved = prove(server.setup(), &copy);
    assert_eq!(proved.code, Some(0), "{proved:?}");
    server.owner().get(&format!("/api/apps/{app}")).expect(200);
}

#[test]
fn p30_of_the_copies_the_last_two_stay() {
    let (setup, _) = stopped();
    let live = setup.data().join("better-paas.db");
    for name in ["first", "second", "third"] {
        change(&live, &format!("UPDATE apps SET name = '{name}'"));
        keep(&setup);
    }
    let copies = setup.data().join("before-update");
    let name_in = |copy: &str| {
        let copy = Connection::open(copies.join(copy).join("better-paas.db")).expect("a copy");
        copy.query_row("SELECT name FROM apps", [], |row| row.get::<_, String>(0)).expect("a name")
    };
    assert_eq!([name_in("newest"), name_in("previous")], ["third", "second"]);
    assert_eq!(fs::read_dir(copies).expect("copies").count(), 2);
}

#[test]
fn p30_a_database_that_a_newer_program_has_changed_goes_back_and_any_other_stays() {
    let (setup, app) = stopped();
    let live = setup.data().join("better-paas.db");
    let back = |setup: &Setup| setup.run(&["update-back"]);
    keep(&setup);
    change(&live, "UPDATE apps SET name = 'since'");
    assert_eq!(back(&setup).code, Some(0));
    let server = setup.start();
    assert_eq!(server.owner().get(&format!("/api/apps/{app}")).expect(200).json()["name"], "since");
    // It is under way in one that runs.
    change(&live, "PRAGMA user_version = 99");
    let refused = back(server.setup());
    assert!(refused.stderr.contains("another server already works in"), "{refused:?}");
    assert_eq!(schema(&live), 99);
    let setup = server.stop();
    change(&live, "ALTER TABLE apps ADD COLUMN later TEXT");
    // What a killed program leaves: a log with changes in it.
    let program = "import os, sqlite3, sys; d = sqlite3.connect(sys.argv[1]); \
                   d.execute(\"UPDATE apps SET name = 'lost'\"); d.commit(); os._exit(0)";
    run(Command::new("python3").args(["-c", program]).arg(&live));
    assert!(setup.data().join("better-paas.db-wal").metadata().is_ok_and(|log| log.len() > 0));
    assert_eq!(back(&setup).code, Some(0));
    assert!(schema(&live) < 99);
    let database = Database::of(setup);
    assert_eq!(database.text("SELECT name FROM apps"), "shop");
    let server = database.setup().start();
    assert_eq!(server.owner().get(&format!("/api/apps/{app}")).expect(200).json()["name"], "shop");
}

#[test]
fn p30_a_database_of_every_version_opens_with_all_that_it_holds() {
    let databases = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/fixtures/databases");
    let mut tried = 0;
    for entry in fs::read_dir(databases).expect("databases").flatten() {
        let setup = Setup::new().env("BETTER_PAAS_SECRET_KEY", &hex(&[7; 32]));
        fs::create_dir(setup.data()).expect("a directory");
        let sql = fs::read_to_string(entry.path()).expect("SQL");
        change(&setup.data().join("better-paas.db"), &sql);
        let server = setup.start();
        let mut owner = server.owner();
        let app = owner.get("/api/apps").expect(200).json()["apps"][0].clone();
        let is = ["name", "gitRepo", "memoryMb", "domains", "hasGitToken", "hasWebhookSecret"]
            .map(|field| app[field].clone());
        let expected = json!([
            "shop",
            "https://git.example.com/shop.git",
            64,
            ["shop.example.com"],
            true,
            true
        ]);
        assert_eq!(json!(is), expected, "{}", entry.path().display());
        let path = format!("/api/apps/{}", app["id"].as_str().expect("an id"));
        let mut of_app = |what: &str| owner.get(&format!("{path}/{what}")).expect(200).json();
        assert_eq!(of_app("env")["env"][0]["value"], "one");
        assert_eq!(of_app("env")["env"][1], json!({"name": "HIDDEN", "secret": true}));
        assert_eq!(of_app("jobs")["jobs"][0]["schedule"], "@daily");
        assert_eq!(of_app("deploys")["deploys"][0]["status"], "failed");
        // Its secrets open, and the next version can prove itself on it.
        let copy = keep(server.setup());
        assert_eq!(prove(server.setup(), &copy).code, Some(0), "{}", entry.path().display());
        tried += 1;
    }
    assert!(tried > 0);
}

#[test]
fn p30_only_the_socket_of_the_data_directory_says_the_version_without_a_token() {
    let server = Server::start();
    assert_eq!(server.stranger().get("/healthz").expect(200).text(), "ok");
    let mut asked = std::os::unix::net::UnixStream::connect(server.data().join("gate.sock"))
        .expect("the socket");
    let request = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    std::io::Write::write_all(&mut asked, request).expect("sent");
    let answer = std::io::read_to_string(asked).expect("an answer");
    assert!(answer.ends_with(concat!("\r\n\r\nok ", env!("CARGO_PKG_VERSION"))), "{answer}");
}
