//! The live checklist (P28): what is broken is found, and mended by what the finding prints.

use crate::harness::apps::{PLAIN, create, deploy, deploy_live, ended};
use crate::harness::checks::{check, command, finding, found, mend, mended};
use crate::harness::sealed::Database;
use crate::harness::small_disk::SmallDisk;
use crate::harness::{GitServer, Http, Server, Setup, until};
use serde_json::{Value, json};
use std::fs::{self, File, OpenOptions, Permissions};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, SystemTime};

fn start() -> (Server, Http) {
    let server = Server::start();
    let owner = server.owner();
    (server, owner)
}

fn judged(owner: &mut Http) -> Vec<Value> {
    let answer = owner.get("/api/security/check").expect(200).json();
    answer["findings"].as_array().expect("a list").clone()
}

#[test]
fn p28_a_fresh_server_has_nothing_to_be_mended_now_and_says_what_would_make_it_better() {
    let (server, mut owner) = start();
    until("the fences were tried", Duration::from_secs(60), || {
        finding(&mut owner, "firewall").is_some()
    });
    let all = judged(&mut owner);
    assert!(all.iter().all(|found| found["level"] != "fail"), "{all:#?}");
    for id in ["key", "backup", "backup-place", "firewall"] {
        let found = all.iter().find(|found| found["id"] == id).expect(id);
        assert!(found["level"] == "warn" && !found["mend"].as_str().unwrap().is_empty(), "{found}");
    }
    for id in ["files", "cleartext", "audit", "token", "disk"] {
        assert_eq!(finding(&mut owner, id).expect(id)["level"], "pass", "{id}");
    }
    let (text, code) = check(server.setup(), &[]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("ok    every secret in the database is encrypted"), "{text}");
    assert!(text.contains("WARN  the encryption key lies beside the data"), "{text}");
    let (json, _) = check(server.setup(), &["--json"]);
    let json: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json["findings"].as_array().unwrap().len(), judged(&mut owner).len());
    // Without the server the rest is judged.
    let (text, code) = check(&server.stop(), &[]);
    assert!(code == Some(0) && text.contains("note  no server runs"), "{text}");
    assert!(text.contains("ok    the chain of the audit log is whole"), "{text}");
}

#[test]
fn p28_loosened_modes_are_found_and_mended_by_the_command_that_is_printed() {
    let (server, mut owner) = start();
    // A command closes them itself, and says so.
    let key = server.data().join("secret.key");
    fs::set_permissions(&key, Permissions::from_mode(0o644)).unwrap();
    let (text, code) = check(server.setup(), &[]);
    assert!(code == Some(1) && text.contains("FAIL  until now other users could reach"), "{text}");
    assert_eq!(check(server.setup(), &[]).1, Some(0));
    for name in ["secret.key", "better-paas.db"] {
        fs::set_permissions(server.data().join(name), Permissions::from_mode(0o644)).unwrap();
    }
    let seen = found(&mut owner, "files", "fail");
    assert!(seen["sentence"].as_str().unwrap().contains("and 1 more"), "{seen}");
    mend(&seen);
    mended(&mut owner, "files");
}

#[test]
fn p28_a_changed_audit_row_is_found_and_a_new_chain_begun() {
    let (server, mut owner) = start();
    owner.put("/api/settings/github-token", &json!({"token": "ghp_one"})).expect(200);
    owner.delete("/api/settings/github-token").expect(204);
    Database::beside(&server).run("UPDATE audit SET act = replace(act, 'admin', 'shell')");
    let seen = found(&mut owner, "audit", "fail");
    assert!(seen["sentence"].as_str().unwrap().contains("row 1 is not the one"), "{seen}");
    let (text, code) = check(server.setup(), &[]);
    assert!(code == Some(1) && text.contains("FAIL  the audit log was tampered with"), "{text}");
    mend(&seen);
    mended(&mut owner, "audit");
    assert!(server.data().join("before-update/newest/better-paas.db").exists());
    let rows = owner.get("/api/audit").expect(200).json()["audit"].clone();
    assert!(rows[0]["act"].as_str().unwrap().contains("row 1 is not the one"), "{rows}");
    assert_eq!(server.operator(&["audit", "--begin-anew"]).code, Some(1), "it is whole");
}

#[test]
fn p28_a_proxy_that_is_not_trusted_is_found_by_the_owners_own_requests_alone() {
    let (server, mut owner) = start();
    let mut through = server.owner().forwarded_for("198.51.100.7");
    let mut stranger = server.stranger().forwarded_for("198.51.100.8");
    stranger.get("/api/session").expect(401);
    assert!(finding(&mut owner, "proxy").is_none());
    through.get("/api/session").expect(200);
    let seen = found(&mut through, "proxy", "warn");
    let setting = command(&seen);
    assert_eq!(setting, "TRUST_PROXY=127.0.0.1");
    drop((owner, through, stranger));
    let server = server.stop().env("TRUST_PROXY", "127.0.0.1").start();
    let mut owner = server.owner().forwarded_for("198.51.100.7").with("X-Forwarded-Proto", "http");
    assert!(finding(&mut owner, "proxy").is_none());
    // Which says whom it came from, and how: over plain HTTP, from the Internet.
    let seen = found(&mut owner, "plain-http", "warn");
    assert!(seen["sentence"].as_str().unwrap().contains("from 198.51.100.7"), "{seen}");
}

#[test]
fn p28_a_clock_that_is_not_that_of_the_browser_is_found_while_it_is_so() {
    let (_server, mut owner) = start();
    let look = |owner: &mut Http, ahead: i64| {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis();
        let its = i64::try_from(now).unwrap() - ahead * 1000;
        owner.get(&format!("/api/security/check?now={its}")).expect(200);
        finding(owner, "clock-browser")
    };
    assert!(look(&mut owner, 0).is_none());
    let seen = look(&mut owner, 10_800).expect("three hours");
    assert!(
        seen["level"] == "fail" && seen["mend"].as_str().unwrap().contains("set-ntp"),
        "{seen}"
    );
    assert!(look(&mut owner, 1).is_none());
    assert_eq!(owner.get("/api/security/check?now=soon").expect(400).code(), "invalid_field");
}

#[test]
fn p28_backups_that_are_old_or_damaged_are_found() {
    let (server, mut owner) = start();
    let made = |owner: &mut Http| {
        owner.get("/api/backups").expect(200).json()["backups"].as_array().unwrap().clone()
    };
    owner.post("/api/backups", &json!({})).expect(202);
    until("it is proved", Duration::from_secs(60), || {
        made(&mut owner).first().is_some_and(|made| made["checkedAt"].is_i64())
    });
    assert_eq!(finding(&mut owner, "backup").unwrap()["level"], "pass");
    let name = made(&mut owner)[0]["name"].as_str().unwrap().to_owned();
    let path = server.data().join("backups").join(name);
    // Of three days ago, as far as anybody knows.
    fs::remove_file(path.with_extension("json")).unwrap();
    let file = OpenOptions::new().append(true).open(&path).unwrap();
    file.set_modified(SystemTime::now() - Duration::from_secs(3 * 86_400)).unwrap();
    let seen = found(&mut owner, "backup", "fail");
    assert!(seen["sentence"].as_str().unwrap().contains("72 hours old"), "{seen}");
    mend(&seen);
    mended(&mut owner, "backup");
    let newest = made(&mut owner)[0]["name"].as_str().unwrap().to_owned();
    let path = server.data().join("backups").join(newest);
    fs::write(path.with_extension("json"), r#"{"size": 1}"#).unwrap();
    let seen = found(&mut owner, "backup-damaged", "fail");
    mend(&seen);
    mended(&mut owner, "backup-damaged");
    assert!(!path.exists());
}

#[test]
fn p28_a_backup_that_could_not_be_taken_elsewhere_is_found_until_the_next_one_is() {
    let setup = Setup::new();
    let door = setup.home().join("door");
    let command = json!(["sh", "-c", "test -e $0", door]).to_string();
    let server = setup.env("BACKUP_COMMAND", &command).start();
    let mut owner = server.owner();
    owner.post("/api/backups", &json!({})).expect(202);
    let seen = found(&mut owner, "backup-place", "fail");
    assert!(seen["sentence"].as_str().unwrap().contains("exit code 1"), "{seen}");
    fs::write(&door, "").unwrap();
    owner.post("/api/backups", &json!({})).expect(202);
    mended(&mut owner, "backup-place");
}

#[test]
fn p28_an_old_token_and_values_in_the_clear_are_found_and_mended_by_what_is_printed() {
    let (server, mut owner) = start();
    owner.put("/api/settings/github-token", &json!({"token": "ghp_one"})).expect(200);
    Database::beside(&server).run("UPDATE settings SET value = 'ghp_one'");
    let seen = found(&mut owner, "cleartext", "warn");
    assert!(seen["sentence"].as_str().unwrap().ends_with("not encrypted: 1"), "{seen}");
    mend(&seen);
    mended(&mut owner, "cleartext");
    let token = File::options().append(true).open(server.data().join("admin_token.txt")).unwrap();
    token.set_modified(SystemTime::now() - Duration::from_secs(400 * 86_400)).unwrap();
    let seen = found(&mut owner, "token", "warn");
    assert!(seen["sentence"].as_str().unwrap().contains("400 days old"), "{seen}");
    mend(&seen);
    drop(owner);
    mended(&mut server.owner(), "token");
}

#[test]
fn p28_a_program_that_listens_for_the_whole_network_is_found_and_named() {
    let (_server, mut owner) = start();
    // Where another test may have a port that apps are given, this is none.
    let listener = std::iter::repeat_with(|| TcpListener::bind("0.0.0.0:0").unwrap())
        .find(|listener| !(20_000..30_000).contains(&listener.local_addr().unwrap().port()));
    let listener = listener.unwrap();
    let id = format!("port {}", listener.local_addr().unwrap().port());
    // Others' come first where there are many.
    let seen = found(&mut owner, &id, "warn");
    let shown = mend(&seen);
    assert!(shown.contains(&format!("pid={}", std::process::id())), "{shown}");
    drop(listener);
    mended(&mut owner, &id);
}

/// A program in the place of one of the machine's.
fn program(setup: &Setup, name: &str, script: &str) -> PathBuf {
    let path = setup.home().join("bin").join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
    path
}

#[test]
fn p28_a_clock_that_nothing_sets_and_pending_updates_are_found_and_mended_by_what_is_printed() {
    if !rustix::process::getuid().is_root() {
        eprintln!("NOT TESTED: only root shows a server other programs");
        return;
    }
    let setup = Setup::new().as_user().start().stop();
    let state = setup.home().join("state");
    fs::write(&state, "").unwrap();
    let state = state.display();
    let clock = format!(
        "case $1 in show) grep -q clock {state} && echo yes || echo no;; set-ntp) echo clock >>{state};; esac"
    );
    let packages = format!(
        "case \"$*\" in -s*) grep -q updated {state} || echo 'Inst a [1] (2 Debian-Security:12/stable-security [amd64])';;\n\
         *upgrade) echo updated >>{state};; esac"
    );
    let clock = program(&setup, "timedatectl", &clock);
    let packages = program(&setup, "apt-get", &packages);
    let bin = clock.parent().unwrap().to_owned();
    let setup =
        setup.instead_of("/usr/bin/timedatectl", &clock).instead_of("/usr/bin/apt-get", &packages);
    let judged = |id: &str| {
        let (json, _) = check(&setup, &["--json"]);
        let json: Value = serde_json::from_str(&json).expect("JSON");
        let all = json["findings"].as_array().expect("a list").clone();
        all.into_iter().find(|found| found["id"] == id)
    };
    // In a container it is the host's, and nothing is said of it.
    let is_container = std::path::Path::new("/run/systemd/container").exists();
    for id in ["clock", "updates"].into_iter().filter(|id| *id != "clock" || !is_container) {
        let seen = judged(id).expect(id);
        assert_eq!(seen["level"], "warn", "{seen}");
        let command = command(&seen).replace("sudo ", "");
        let path = format!("{}:/usr/bin:/bin", bin.display());
        let mended = Command::new("sh").args(["-ec", &command]).env("PATH", path).status();
        assert!(mended.unwrap().success(), "{command}");
        let level = judged(id).map(|found| found["level"].clone());
        let sentence = judged(id).map(|found| found["sentence"].to_string()).unwrap_or_default();
        // Its lists may be old, which is another thing.
        assert!(level == Some(json!("pass")) || sentence.contains("two weeks"), "{id}: {sentence}");
    }
}

#[test]
fn p28_a_full_disk_is_found_and_what_fills_it_is_shown() {
    let setup = Setup::new();
    let Some(disk) = SmallDisk::at(setup.data()) else {
        eprintln!("NOT TESTED: nothing can be mounted here");
        return;
    };
    disk.remount("size=1300m");
    let server = setup.start();
    let mut owner = server.owner();
    let filler = server.data().join("filler");
    let filled = File::create(&filler).unwrap();
    rustix::fs::fallocate(&filled, rustix::fs::FallocateFlags::empty(), 0, 850 << 20).unwrap();
    let seen = found(&mut owner, "disk", "fail");
    let shown = mend(&seen);
    assert!(shown.contains("filler"), "{shown}");
    fs::remove_file(&filler).unwrap();
    drop(filled);
    until("there is room again", Duration::from_secs(60), || {
        finding(&mut owner, "disk").is_some_and(|found| found["level"] != "fail")
    });
}

#[test]
fn p28_a_token_in_the_arguments_of_a_process_is_found_and_a_new_one_mends_it() {
    let (server, mut owner) = start();
    let token = fs::read_to_string(server.data().join("admin_token.txt")).unwrap();
    let mut careless = Command::new("sleep").arg("600").env("TOKEN", token.trim()).spawn().unwrap();
    let seen = found(&mut owner, "token-shown", "fail");
    assert!(seen["sentence"].as_str().unwrap().contains(&careless.id().to_string()), "{seen}");
    mend(&seen);
    drop(owner);
    let mut owner = server.owner();
    mended(&mut owner, "token-shown");
    careless.kill().unwrap();
    careless.wait().unwrap();
}

#[test]
fn p28_a_failed_deploy_a_failed_job_and_one_that_was_missed_are_found_until_the_next_goes_well() {
    let git = GitServer::start();
    let (server, mut owner) = start();
    git.commit("shop", &PLAIN);
    let app = create(&mut owner, &json!({"name": "shop", "gitRepo": git.url("shop")}));
    deploy_live(&mut owner, &app);
    assert_eq!(finding(&mut owner, "apps").expect("all is well")["level"], "pass");
    // A deploy.
    git.commit("shop", &[(PLAIN[0].0, PLAIN[0].1), ("Procfile", "web: exit 3\n")]);
    let failed = deploy(&mut owner, &app);
    assert_eq!(ended(&mut owner, &failed)["status"], "failed");
    let seen = found(&mut owner, &format!("deploy {app}"), "warn");
    assert!(seen["sentence"].as_str().unwrap().ends_with("serves on") && seen["appId"] == *app);
    git.commit("shop", &PLAIN);
    deploy_live(&mut owner, &app);
    mended(&mut owner, &format!("deploy {app}"));
    // A job.
    let id = format!("job {app} tidy");
    let set = |owner: &mut Http, command: &str| {
        let jobs = json!([{"name": "tidy", "command": command, "schedule": "@daily"}]);
        owner.put(&format!("/api/apps/{app}/jobs"), &json!({ "jobs": jobs })).expect(200);
        owner.post(&format!("/api/apps/{app}/jobs/tidy/run"), &json!({})).expect(202);
    };
    set(&mut owner, "exit 3");
    let seen = found(&mut owner, &id, "warn");
    assert!(seen["sentence"].as_str().unwrap().ends_with("failed: exit code 3"), "{seen}");
    set(&mut owner, "true");
    mended(&mut owner, &id);
    // One of three days ago was the last.
    let then = "UPDATE runs SET started_at = started_at - 259200000 WHERE job = 'tidy'";
    Database::beside(&server).run(then);
    let seen = found(&mut owner, &id, "warn");
    assert!(seen["sentence"].as_str().unwrap().contains("its time had come"), "{seen}");
    owner.post(&format!("/api/apps/{app}/jobs/tidy/run"), &json!({})).expect(202);
    mended(&mut owner, &id);
}

#[test]
fn p28_an_app_that_ends_again_and_again_is_found_until_it_does_not() {
    let git = GitServer::start();
    let (_server, mut owner) = start();
    // It is well for as long as its deploy looks.
    let start = "import http.server, threading, os\n\
        h = type('H', (http.server.BaseHTTPRequestHandler,), {'do_GET': lambda s: (s.send_response(200), s.end_headers())})\n\
        threading.Timer(3, lambda: os._exit(3)).start()\n\
        http.server.HTTPServer(('127.0.0.1', int(os.environ['PORT'])), h).serve_forever()\n";
    git.commit("loop", &[PLAIN[0], ("main.py", start)]);
    let app = create(&mut owner, &json!({"name": "loop", "gitRepo": git.url("loop")}));
    deploy_live(&mut owner, &app);
    let seen = found(&mut owner, &format!("loop {app}"), "fail");
    assert!(seen["sentence"].as_str().unwrap().contains("exit code 3"), "{seen}");
    git.commit("loop", &[PLAIN[0], ("main.py", &start.replace("Timer(3,", "Timer(3000,"))]);
    deploy_live(&mut owner, &app);
    mended(&mut owner, &format!("loop {app}"));
}
