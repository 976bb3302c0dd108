//! Start and stop: the command line, bad values, signals, and what the server does with damaged data.

use crate::harness::server::run;
use crate::harness::small_disk::SmallDisk;
use crate::harness::{RawConn, Server, Setup, Ws, until};
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, prlimit};
use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::Duration;

#[test]
fn help_and_version_are_printed_and_touch_nothing() {
    let setup = Setup::new();
    for words in [&["help"][..], &["--help"], &["-h"]] {
        let finished = setup.run(words);
        assert_eq!(finished.code, Some(0), "{finished:?}");
        for word in [
            "token",
            "--rotate",
            "lockouts",
            "clear",
            "version",
            "help",
            "ADMIN_TOKEN",
            "LISTEN_ADDR",
            "TRUST_PROXY",
            "DASHBOARD_ORIGIN",
            "BETTER_PAAS_SECRET_KEY",
            "DATA_DIR",
        ] {
            assert!(finished.stdout.contains(word), "{word} is not in {}", finished.stdout);
        }
    }
    for words in [&["version"][..], &["--version"]] {
        let finished = setup.run(words);
        let expected = format!("server {}\n", env!("CARGO_PKG_VERSION"));
        assert_eq!((finished.code, finished.stdout), (Some(0), expected));
    }
    assert!(!setup.data().exists());
}

#[test]
fn unknown_words_exit_with_2_and_a_hint() {
    let setup = Setup::new();
    for words in [
        &["serve"][..],
        &["tokens"],
        &["token", "extra"],
        &["token", "--rotat"],
        &["--listen", "x"],
        &["lockouts", "clear"],
        &["lockouts", "clear", "nonsense"],
        &["lockouts", "wipe"],
        &["version", "x"],
        &["-x"],
        &["\u{1b}[31mred"],
        &["token", "--rotate=1"],
    ] {
        let finished = setup.run(words);
        assert_eq!(finished.code, Some(2), "{words:?}: {finished:?}");
        let text = finished.stderr.trim_end();
        assert!(text.lines().count() == 1 && text.contains("help"), "{words:?}: {text}");
        assert!(!text.contains('\u{1b}') && finished.stdout.is_empty(), "{words:?}: {text:?}");
    }
    assert!(!setup.data().exists());
}

#[test]
fn every_bad_value_is_one_sentence_and_exit_code_1() {
    let cases: &[(&str, &[&str])] = &[
        (
            "LISTEN_ADDR",
            &[
                "8080",
                ":",
                ":99999",
                ":-1",
                ":+80",
                "localhost:80",
                "1.2.3:80",
                "::1:80",
                "http://x:80",
                ":80:80",
                "[::1]",
            ],
        ),
        (
            "TRUST_PROXY",
            &["yes", "1", "10.0.0.0/33", "10.0.0.0/8,", "true,10.0.0.0/8", "::/129", "example.com"],
        ),
        (
            "DASHBOARD_ORIGIN",
            &[
                "paas.example.com",
                "https://",
                "ftp://x",
                "https://x/path",
                "https://x y",
                "https://x:99999",
                "*",
                "https://a@b",
            ],
        ),
        ("BETTER_PAAS_SECRET_KEY", &["short", "g".repeat(64).leak()]),
        ("ADMIN_TOKEN", &["", "short"]),
    ];
    for (name, values) in cases {
        for value in *values {
            let finished = Setup::new().env(name, value).run(&[]);
            assert_eq!(finished.code, Some(1), "{name}={value}: {finished:?}");
            let text = finished.stderr.trim_end();
            assert_eq!(text.lines().count(), 1, "{name}={value}: {text}");
            assert!(text.contains(name), "{name}={value}: {text}");
        }
    }
}

#[test]
fn empty_values_mean_unset() {
    let mut setup = Setup::new();
    for name in ["TRUST_PROXY", "DASHBOARD_ORIGIN", "BETTER_PAAS_SECRET_KEY"] {
        setup = setup.env(name, "");
    }
    setup.start().owner().get("/api/session").expect(200);
}

#[test]
fn sigterm_and_sigint_stop_it_cleanly_within_10_s() {
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        let mut server = Server::start();
        let mut kept = RawConn::to(server.address());
        kept.send("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").answer().expect(200);
        // Half a request, a slow body and an open socket do not hold it up.
        let mut half = RawConn::to(server.address());
        half.send("GET /healthz HT");
        let mut slow = RawConn::to(server.address());
        slow.send("POST /api/apps HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{");
        let path = format!("/ws/stats?token={}", server.token());
        let socket = Ws::at(server.address(), &path).open().unwrap();
        let (status, took) = server.end_by(signal);
        assert_eq!(status.code(), Some(0), "{}", server.log());
        assert!(took < Duration::from_secs(10), "{took:?}");
        assert!(!server.log().contains("panicked"), "{}", server.log());
        drop((kept, half, slow, socket));
        assert!(!server.data().join("better-paas.db-wal").exists(), "the database was closed");
    }
}

#[test]
fn a_signal_right_at_the_start_ends_it_too() {
    for pause in [0, 2, 5, 10, 20, 40] {
        let setup = Setup::new();
        let mut child = setup.spawn(&[], Stdio::null);
        crate::harness::wait::let_pass(Duration::from_millis(pause));
        crate::harness::process::signal(child.id(), Signal::TERM);
        crate::harness::until("it has ended", Duration::from_secs(60), || {
            child.try_wait().unwrap().is_some()
        });
        setup.start().owner().get("/api/session").expect(200);
    }
}

#[test]
fn the_url_of_the_dashboard_is_printed() {
    let server = Server::start();
    let url = format!("http://{}", server.address());
    assert!(server.log().contains(&url), "{}", server.log());
    let domain = Setup::routed().env("DASHBOARD_DOMAIN", "paas.example.com").start();
    let url = format!("https://paas.example.com:{}", domain.setup().router("HTTPS_PORT").port());
    assert!(domain.log().contains(&url), "{}", domain.log());
}

#[test]
fn the_line_that_prints_the_token_runs_from_anywhere() {
    // P5: at the first start, in the block with the token, and at every other.
    for named in [true, false] {
        let setup = if named { Setup::new() } else { Setup::new().without("DATA_DIR") };
        let mut server = setup.start();
        for _ in 0..2 {
            let log = server.log();
            let mut lines = log.lines().filter(|line| line.ends_with("server token"));
            let line = lines.next().expect("a line with the command").trim_start();
            let line = line.split_once("the admin token: ").map_or(line, |(_, rest)| rest);
            // Tests run as one user, so nobody need be become.
            let line = line.split_once("sudo -u ").map_or_else(
                || line.to_owned(),
                |(before, rest)| format!("{before}{}", rest.split_once(' ').expect("a name").1),
            );
            let mut shell = Command::new("/bin/sh");
            shell.args(["-c", &line]).current_dir("/").env_remove("DATA_DIR");
            assert_eq!(run(&mut shell).trim_end(), server.token(), "{line}");
            server = server.restart();
        }
    }
}

#[test]
fn operator_commands_say_when_there_is_nothing_to_talk_to() {
    let setup = Setup::new();
    for words in [&["token"][..], &["token", "--rotate"], &["lockouts"]] {
        let finished = setup.run(words);
        assert_eq!(finished.code, Some(1), "{words:?}: {finished:?}");
        assert_eq!(finished.stderr.trim_end().lines().count(), 1, "{finished:?}");
        assert!(!setup.data().exists(), "{words:?} made a data directory");
        for part in [setup.data().to_str().unwrap(), "DATA_DIR="] {
            assert!(finished.stderr.contains(part), "{finished:?}");
        }
    }
    let stopped = Server::start().stop();
    let finished = stopped.run(&["lockouts"]);
    assert_eq!(finished.code, Some(1), "{finished:?}");
    assert!(finished.stderr.contains("no server runs"), "{finished:?}");
}

/// Damages a stopped server's database; the start must fail with a sentence and change nothing.
#[track_caller]
fn damaged(damage: impl FnOnce(&std::path::Path), word: &str) {
    let server = Server::start();
    crate::harness::sealed::first_app(&server, "shop", Some("ghp_secret"));
    let setup = server.stop();
    let file = setup.data().join("better-paas.db");
    damage(&file);
    let before = std::fs::read(&file).unwrap();
    let finished = setup.run(&[]);
    assert_eq!(finished.code, Some(1), "{finished:?}");
    let last = finished.stderr.lines().last().unwrap();
    assert!(last.contains(word) && !finished.stderr.contains("panicked"), "{finished:?}");
    assert!(std::fs::read(&file).unwrap() == before, "the file has changed");
}

#[test]
fn a_database_from_a_newer_version_is_left_alone() {
    let newer = |file: &std::path::Path| {
        let connection = rusqlite::Connection::open(file).unwrap();
        connection.pragma_update(None, "user_version", 999).unwrap();
    };
    damaged(newer, "newer version");

    // Nor is the write-ahead log that a killed one left, which holds the number and more.
    let mut server = Server::start();
    crate::harness::sealed::first_app(&server, "shop", Some("ghp_secret"));
    let setup = server.setup().clone();
    server.kill9();
    let file = setup.data().join("better-paas.db");
    let connection = rusqlite::Connection::open(&file).unwrap();
    let keep = rusqlite::config::DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE;
    connection.set_db_config(keep, true).unwrap();
    connection.pragma_update(None, "user_version", 999).unwrap();
    drop(connection);
    let read = || [&file, &file.with_extension("db-wal")].map(|f| std::fs::read(f).unwrap());
    let before = read();
    let finished = setup.run(&[]);
    assert!(finished.code == Some(1) && finished.stderr.contains("newer version"), "{finished:?}");
    assert!(read() == before, "the files have changed");
}

#[test]
fn a_corrupt_database_is_left_alone() {
    let overwrite = |file: &std::path::Path| {
        std::fs::write(file, b"not a database at all".repeat(300)).unwrap()
    };
    damaged(overwrite, "damaged");
    let middle = |file: &std::path::Path| {
        let mut bytes = std::fs::read(file).unwrap();
        let page = 4096;
        for byte in &mut bytes[page..3 * page] {
            *byte ^= 0x5a;
        }
        std::fs::write(file, bytes).unwrap();
    };
    damaged(middle, "damaged");
    let cut = |file: &std::path::Path| {
        let bytes = std::fs::read(file).unwrap();
        std::fs::write(file, &bytes[..bytes.len() / 2]).unwrap();
    };
    damaged(cut, "damaged");
    let foreign = |file: &std::path::Path| {
        std::fs::remove_file(file).unwrap();
        let connection = rusqlite::Connection::open(file).unwrap();
        connection.execute_batch("CREATE TABLE songs (title TEXT)").unwrap();
    };
    damaged(foreign, "another program");
    // What SQLite itself takes for a new one, and writes over.
    for rest in ["", "x"] {
        damaged(|file| std::fs::write(file, rest).unwrap(), "is empty");
    }
}

#[test]
fn a_database_that_was_lost_is_not_made_anew_beside_its_apps() {
    let setup = Server::start().stop();
    let file = setup.data().join("better-paas.db");
    std::fs::remove_file(&file).unwrap();
    let app = setup.data().join("apps/aaaaaaaaaa");
    std::fs::create_dir_all(&app).unwrap();
    let finished = setup.run(&[]);
    assert_eq!(finished.code, Some(1), "{finished:?}");
    assert!(finished.stderr.contains("better-paas.db is not there"), "{finished:?}");
    assert!(!file.exists());
    // Without them nothing is lost, whatever token was made for the first start.
    std::fs::remove_dir(app).unwrap();
    setup.start().owner().get("/api/session").expect(200);
}

#[test]
fn a_full_disk_is_an_error_for_that_request_and_the_data_stays_as_it_was() {
    let setup = Setup::new();
    let Some(disk) = SmallDisk::at(setup.data()) else {
        assert!(std::env::var_os("CI").is_none(), "this needs the right to mount; CI has it");
        eprintln!("not tried: no right to mount a small file system here");
        return;
    };
    let server = setup.clone().start();
    let mut owner = server.owner();
    let mut added = 0;
    let refusal = loop {
        let app = serde_json::json!({"name": format!("app-{added}"),
            "gitRepo": "https://git.example.com/a.git", "buildCommand": "x".repeat(1900)});
        let answer = owner.post("/api/apps", &app);
        if answer.status != 201 {
            break answer;
        }
        added += 1;
        assert!(added < 2000, "a mebibyte does not get full");
    };
    assert!((500..600).contains(&refusal.status), "{refusal:?}");
    assert!(refusal.message().contains("full"), "{}", refusal.text());
    assert_eq!(owner.get("/api/apps").expect(200).json()["apps"].as_array().unwrap().len(), added);
    let filler = server.data().join("filler");
    let mut file = std::fs::File::create(&filler).unwrap();
    while file.write(&[0; 4096]).is_ok() {}
    let rotation = owner.post("/api/security/rotate-token", &serde_json::json!({})).expect(507);
    let message = rotation.message();
    assert!(message.contains("free some space") && message.contains("stays in force"), "{message}");
    owner.get("/api/session").expect(200);
    drop(file);
    std::fs::remove_file(filler).unwrap();
    drop(owner);
    drop(server.stop());
    disk.remount("size=8m");
    let server = setup.clone().start();
    let apps = server.owner().get("/api/apps").expect(200).json();
    assert_eq!(apps["apps"].as_array().unwrap().len(), added);
    drop(server.stop());
    disk.remount("ro");
    let finished = setup.run(&[]);
    assert_eq!(finished.code, Some(1), "{finished:?}");
    let last = finished.stderr.lines().last().unwrap_or_default();
    assert!(last.contains("mount that file system writable"), "{finished:?}");
    assert!(last.contains(setup.data().to_str().unwrap()), "{finished:?}");
    disk.remount("rw");
    let apps = setup.start().owner().get("/api/apps").expect(200).json();
    assert_eq!(apps["apps"].as_array().unwrap().len(), added);
}

#[test]
fn an_ordinary_user_can_run_it() {
    let server = Setup::new().as_user().start();
    server.owner().get("/api/session").expect(200);
    assert_eq!(crate::harness::server::mode(&server.data()), 0o700);
    assert_eq!(server.operator(&["token"]).stdout.trim_end(), server.token());
}

#[test]
fn p32_what_its_parent_left_open_is_closed() {
    let server = Setup::new().shell("exec 5</etc/passwd 7</etc/passwd").start();
    let open = std::fs::read_dir(format!("/proc/{}/fd", server.pid())).unwrap().flatten();
    let files: Vec<_> = open.filter_map(|entry| std::fs::read_link(entry.path()).ok()).collect();
    assert!(!files.iter().any(|file| file.ends_with("passwd")), "{files:?}");
}

#[test]
fn a_server_whose_inner_socket_broke_for_want_of_files_ends_for_its_service_manager() {
    for spare in [0, 1] {
        ends(spare);
    }
}

fn ends(spare: usize) {
    let mut server = Server::start();
    let mut owner = server.owner();
    owner.get("/api/apps").expect(200);
    let pid = Pid::from_raw(server.pid().try_into().unwrap());
    let own = getrlimit(Resource::Nofile);
    let socket = server.data().join("gate.sock");
    // None more may be opened, or one: then a connection is taken, and cannot be set up.
    until("connections are taken no longer", Duration::from_secs(20), || {
        let open = std::fs::read_dir(format!("/proc/{}/fd", server.pid())).unwrap().flatten();
        let open: Vec<u64> =
            open.map(|e| e.file_name().to_str().unwrap().parse().unwrap()).collect();
        let free = (0..).filter(|n| !open.contains(n)).nth(spare).unwrap();
        let tight = Rlimit { current: Some(free), maximum: own.maximum };
        prlimit(pid, Resource::Nofile, tight).unwrap();
        let _cut = UnixStream::connect(&socket);
        let log = server.log();
        log.contains("panicked") || log.contains("Error accepting new client")
    });
    prlimit(pid, Resource::Nofile, own).unwrap();
    server.wait_for_log("no more connections between gate and handler");
    until("it has ended", Duration::from_secs(20), || !server.is_running());
    assert!(!server.log().contains("stopped"), "{}", server.log());
    let setup = server.setup().clone();
    drop(server);
    setup.start().owner().get("/api/apps").expect(200);
}
