//! Backup and restore (P29): what is in a backup and what never is, when one is made and proved, and what a restore
//! brings back or refuses.

use crate::harness::apps::{DEPLOY_LIMIT, PLAIN, create, deploy_live, ended, show, visitor};
use crate::harness::sealed::Database;
use crate::harness::server::{mode, run};
use crate::harness::small_disk::SmallDisk;
use crate::harness::{Finished, GitServer, Http, Server, Setup, process, until, until_some};
use serde_json::{Value, json};
use std::fs::File;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

/// Making and reading again a backup takes a second; the first look at the machine some more.
const BACKUP_LIMIT: Duration = Duration::from_secs(60);

/// An app with all that an app may have in its `/data`.
const FILL: &str = "cd /data; mkdir -p a/b; printf hello >a/b/file; chmod 640 a/b/file; chmod 750 a; \
     ln -s /data/a/b/file inside; ln -s ../../etc/passwd outside; ln -s b/file a/also; mkfifo pipe; \
     long=$(printf x%.0s $(seq 200)); mkdir $long; printf long >$long/$long; : >empty; chmod 600 empty; \
     python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"socket\")'; \
     python3 -c 'import sqlite3; c = sqlite3.connect(\"app.sqlite\"); c.execute(\"pragma journal_mode=wal\"); \
     c.execute(\"create table t (x)\"); c.execute(\"insert into t values (7)\"); c.commit()'; \
     truncate -s 3G hole; ln a/b/file again; mkdir sealed; \
     python3 -c 'import os, sqlite3; c = sqlite3.connect(\"sealed/db\"); c.execute(\"pragma journal_mode=wal\"); \
     c.execute(\"create table t (x)\"); c.commit(); os._exit(0)'; rm sealed/db-shm; chmod 555 sealed";

/// What is to be there again, as the app sees it.
const SHOW: &str = "cd /data; cat a/b/file inside a/also again; ls sealed; stat -c '%a %U' a a/b/file empty; \
     cat xxxx*/*; echo; ls; python3 -c 'import sqlite3; print(sqlite3.connect(\"app.sqlite\").execute(\"select x from t\").fetchall())'";

#[track_caller]
fn succeeds(setup: &Setup, words: &[&str]) -> Finished {
    let finished = setup.run(words);
    assert_eq!(finished.code, Some(0), "{words:?}: {finished:#?}");
    finished
}

/// A command in the place of an app.
#[track_caller]
fn in_app(setup: &Setup, script: &str) -> String {
    succeeds(setup, &["run", "shop", "--", "sh", "-ec", script]).stdout
}

fn with_an_app(setup: Setup, git: &GitServer) -> (Server, String) {
    let server = setup.start();
    git.commit("shop", &PLAIN);
    let mut owner = server.owner();
    let app = create(&mut owner, &json!({"name": "shop", "gitRepo": git.url("shop")}));
    deploy_live(&mut owner, &app);
    (server, app)
}

#[test]
fn p29_a_restore_on_an_empty_machine_brings_every_app_back_with_its_data() {
    let git = GitServer::start();
    let (server, app) = with_an_app(Setup::new().as_user(), &git);
    let setup = server.setup().clone();
    in_app(&setup, FILL);
    let before = in_app(&setup, SHOW);
    let backup = setup.home().join("today.tgz");
    let made = succeeds(&setup, &["backup", backup.to_str().unwrap()]);
    for skipped in [
        "\"outside\" is a link",
        "\"pipe\" is a socket, a pipe",
        "\"socket\" is a socket",
        "\"hole\" is mostly a hole",
        "\"sealed/db\" is copied as it is, its log is beside it; it may be torn",
    ] {
        assert!(made.stderr.contains(skipped), "{skipped}: {made:#?}");
    }
    assert_eq!(mode(&backup), 0o600);
    let key = setup.home().join("kept.key");
    std::fs::copy(server.data().join("secret.key"), &key).unwrap();
    drop(server);

    let empty = Setup::new().as_user();
    carried(&empty, &[(&backup, "today.tgz"), (&key, "kept.key")]);
    succeeds(&empty, &["restore", "today.tgz", "--key-file", "kept.key"]);
    assert!(empty.run(&["audit"]).stdout.contains("restore: ok"));
    let server = empty.start();
    let mut owner = server.owner();
    let last = until_some("a deploy", DEPLOY_LIMIT, || {
        show(&mut owner, &app)["lastDeployId"].as_str().map(str::to_owned)
    });
    let last = ended(&mut owner, &last);
    assert_eq!(last["status"], "live", "{last:#}");
    assert_eq!(visitor(&mut owner, &app).get("/").expect(200).text(), "VERSION one");
    let after = in_app(server.setup(), SHOW);
    let skipped = ["hole\n", "outside\n", "pipe\n", "socket\n"];
    let kept = skipped.iter().fold(before, |text, name| text.replace(name, ""));
    assert_eq!(after, kept.replace("app.sqlite-shm\napp.sqlite-wal\n", ""));
}

#[test]
fn p29_a_restore_on_the_same_machine_takes_the_place_of_apps_that_run() {
    let git = GitServer::start();
    let (server, app) = with_an_app(Setup::new().as_user(), &git);
    in_app(server.setup(), "echo then >/data/when");
    succeeds(server.setup(), &["backup", "backup.tgz"]);
    in_app(server.setup(), "echo now >/data/when");
    let before: Vec<_> = process::of_apps(&server.data());
    let setup = server.stop();
    succeeds(&setup, &["restore", "backup.tgz"]);
    let server = setup.start();
    let mut owner = server.owner();
    let last = until_some("a deploy", DEPLOY_LIMIT, || {
        show(&mut owner, &app)["lastDeployId"].as_str().map(str::to_owned)
    });
    assert_eq!(ended(&mut owner, &last)["status"], "live");
    assert_eq!(in_app(server.setup(), "cat /data/when"), "then\n");
    let after = process::of_apps(&server.data());
    assert!(!before.is_empty() && before.iter().all(|pid| !after.contains(pid)), "{before:?}");
}

/// Copies files to where another server's user may read them.
fn carried(to: &Setup, files: &[(&Path, &str)]) {
    for (from, name) in files {
        run(Command::new("cp").arg(from).arg(to.home().join(name)));
        run(Command::new("chmod").arg("644").arg(to.home().join(name)));
    }
}

fn backups(owner: &mut Http) -> Value {
    owner.get("/api/backups").expect(200).json()
}

/// Makes a backup as the schedule does, and waits until it is known what became of it.
#[track_caller]
fn back_up(owner: &mut Http) -> Value {
    let before = backups(owner)["backups"][0]["name"].clone();
    let asked = owner.request("POST", "/api/backups", None).expect(202).json();
    assert_eq!(asked["isBeingMade"], true, "{asked}");
    until_some("a backup", BACKUP_LIMIT, || {
        let now = backups(owner);
        let is_new = now["backups"][0]["name"] != before || now["lastError"].is_string();
        (is_new && now["isBeingMade"] == false).then_some(now)
    })
}

fn files(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let mut names: Vec<_> = entries.map(|entry| entry.file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn p29_a_backup_that_is_made_is_proved_handed_over_listed_downloaded_and_deleted() {
    let away = tempfile::tempdir().unwrap();
    let command = format!("cp --target-directory {}", away.path().display());
    let server = Setup::new().env("BACKUP_COMMAND", &command).start();
    let mut owner = server.owner();
    let made = back_up(&mut owner)["backups"][0].clone();
    let name = made["name"].as_str().unwrap().to_owned();
    let file = server.data().join("backups").join(&name);
    assert_eq!((&made["error"], &made["commandError"]), (&Value::Null, &Value::Null), "{made}");
    assert!(made["checkedAt"].is_i64() && made["size"] == file.metadata().unwrap().len());
    assert_eq!(mode(&file), 0o600);
    let whole = std::fs::read(&file).unwrap();
    assert_eq!(std::fs::read(away.path().join(&name)).unwrap(), whole);
    let path = format!("/api/backups/{name}");
    let answer = owner.get(&path).expect(200);
    assert_eq!(answer.header("content-type"), Some("application/gzip"));
    assert!(answer.header("content-disposition").unwrap().contains(&name));
    assert_eq!(answer.body, whole);
    // The header is for people with tar alone.
    let header = Command::new("tar").args(["-xOf"]).arg(&file).arg("HEADER").output().unwrap();
    let header: Value = serde_json::from_slice(&header.stdout).unwrap();
    assert_eq!(
        (&header["version"], &header["schema"]),
        (&env!("CARGO_PKG_VERSION").into(), &7.into())
    );
    run(Command::new("tar").arg("-xzf").arg(&file).arg("-C").arg(away.path()));
    run(Command::new("sha256sum").args(["-c", "MANIFEST"]).current_dir(away.path()));
    let streamed = server.setup().command(&["backup", "-"]).output().unwrap();
    assert!(streamed.status.success() && streamed.stdout.starts_with(b"\x1f\x8b"));
    for other in ["none.tgz", "..%2Fbetter-paas.db", "better-paas.db", "%2Fetc%2Fpasswd"] {
        owner.get(&format!("/api/backups/{other}")).expect(404);
        assert_eq!(owner.delete(&format!("/api/backups/{other}")).status, 404);
    }
    assert_eq!(owner.delete(&path).status, 204);
    owner.get(&path).expect(404);
    assert_eq!(files(&server.data().join("backups")), [""; 0]);
}

#[test]
fn p29_a_backup_that_was_damaged_later_and_a_command_that_fails_are_told() {
    let server = Setup::new().env("BACKUP_COMMAND", "[\"ls\", \"--no such option\"]").start();
    let mut owner = server.owner();
    let made = back_up(&mut owner)["backups"][0].clone();
    let why = made["commandError"].as_str().expect("a sentence").to_owned();
    assert!(why.contains("unrecognized option") && why.ends_with("(exit code 2)"), "{why}");
    server.wait_for_log("is on this machine alone: BACKUP_COMMAND failed");
    let path = server.data().join("backups").join(made["name"].as_str().unwrap());
    let (file, time) = (File::options().write(true).open(&path).unwrap(), path.metadata().unwrap());
    let middle = time.len() / 2;
    file.write_all_at(b"damage", middle).unwrap();
    let listed = backups(&mut owner)["backups"][0]["error"].clone();
    assert_eq!(listed, "it was changed after it was made");
    // With its old time only who reads it sees that.
    file.set_modified(time.modified().unwrap()).unwrap();
    assert_eq!(backups(&mut owner)["backups"][0]["error"], Value::Null);
    let second = made["createdAt"].as_u64().unwrap() / 1000;
    until("another second, by which the next is named", BACKUP_LIMIT, || {
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs() > second
    });
    let now = back_up(&mut owner);
    assert_eq!(now["backups"][0]["error"], Value::Null, "{now:#}");
    assert!(now["backups"][1]["error"].is_string(), "{now:#}");
    server.wait_for_log("is damaged: ");
}

#[test]
fn p29_a_backup_is_taken_elsewhere_although_the_server_ended_meanwhile() {
    let away = tempfile::tempdir().unwrap();
    let at = away.path().display();
    let script = format!("echo $0 >>{at}/log; test -e {at}/go || exec sleep 600");
    let command = json!(["sh", "-c", script]).to_string();
    let server = Setup::new().env("BACKUP_COMMAND", &command).start();
    server.owner().request("POST", "/api/backups", None).expect(202);
    let handed = || std::fs::read_to_string(away.path().join("log")).unwrap_or_default();
    until("the command runs", BACKUP_LIMIT, || handed().lines().count() == 1);
    std::fs::write(away.path().join("go"), "").unwrap();
    let server = server.restart();
    let mut owner = server.owner();
    let done = until_some("it is done", BACKUP_LIMIT, || {
        let made = backups(&mut owner)["backups"][0].clone();
        made["checkedAt"].is_i64().then_some(made)
    });
    assert_eq!((&done["error"], &done["commandError"]), (&Value::Null, &Value::Null), "{done}");
    assert_eq!(handed().lines().count(), 2);
}

#[test]
fn p29_the_schedule_makes_one_when_the_last_is_old_enough_and_keeps_so_many() {
    let server = Setup::new().start();
    let made = back_up(&mut server.owner())["backups"][0]["name"].clone();
    let setup = server.stop();
    let place = setup.data().join("backups");
    let (from, old) = (place.join(made.as_str().unwrap()), place.join("better-paas-1999.tgz"));
    std::fs::rename(&from, &old).unwrap();
    std::fs::remove_file(from.with_extension("json")).unwrap();
    let aged = |hours: u64| {
        let time = SystemTime::now() - Duration::from_secs(hours * 3600);
        File::options().write(true).open(&old).unwrap().set_modified(time).unwrap();
    };
    aged(5);
    let server = setup.env("BACKUP_INTERVAL_HOURS", "6").env("BACKUP_KEEP", "1").start();
    server.wait_for_log("listening");
    assert_eq!(files(&place), ["better-paas-1999.tgz"]);
    // One of a time to come is not taken for the last one.
    let future = place.join("better-paas-9999.tgz");
    std::fs::copy(&old, &future).unwrap();
    let time = SystemTime::now() + Duration::from_secs(3600);
    File::options().write(true).open(&future).unwrap().set_modified(time).unwrap();
    aged(7);
    let server = server.restart();
    let mut owner = server.owner();
    until("a new one is there, and the old one gone", BACKUP_LIMIT, || {
        let now = backups(&mut owner)["backups"].as_array().unwrap().clone();
        let is_new =
            |kept: &Value| kept["name"] != "better-paas-1999.tgz" && kept["checkedAt"].is_i64();
        now.len() == 2 && now[0]["name"] == "better-paas-9999.tgz" && now.iter().all(is_new)
    });
    let setup = server.stop();
    let aged = SystemTime::now() - Duration::from_secs(9000 * 3600);
    let newest = place.join(files(&place).into_iter().find(|name| name.ends_with(".tgz")).unwrap());
    File::options().write(true).open(&newest).unwrap().set_modified(aged).unwrap();
    let server = setup.env("BACKUP_INTERVAL_HOURS", "0").start();
    let known = backups(&mut server.owner());
    assert_eq!(
        (&known["isBeingMade"], known["backups"].as_array().unwrap().len()),
        (&false.into(), 2)
    );
}

#[test]
fn p29_every_backup_is_whole_while_four_write() {
    let server = Setup::new().start();
    let apps: Vec<String> = (0..4)
        .map(|n| {
            create(
                &mut server.owner(),
                &json!({"name": format!("app-{n}"), "gitRepo": "https://git.example.com/x.git"}),
            )
        })
        .collect();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for app in &apps {
            let (server, done) = (&server, &done);
            scope.spawn(move || {
                let mut owner = server.owner();
                for round in 0.. {
                    if done.load(Ordering::SeqCst) {
                        return;
                    }
                    let env: Vec<_> = ["A", "B"].iter()
                        .map(|name| json!({"name": name, "value": format!("{round}"), "secret": false}))
                        .collect();
                    owner.put(&format!("/api/apps/{app}/env"), &json!({"env": env})).expect(200);
                }
            });
        }
        for round in 0..5 {
            let file = format!("backup-{round}.tgz");
            succeeds(server.setup(), &["backup", &file]);
            let other = Setup::new();
            let (backup, key) =
                (server.setup().home().join(&file), server.data().join("secret.key"));
            carried(&other, &[(&backup, "backup.tgz"), (&key, "kept.key")]);
            succeeds(&other, &["restore", "backup.tgz", "--key-file", "kept.key"]);
            let restored = other.start();
            let mut owner = restored.owner();
            for app in &apps {
                let env = owner.get(&format!("/api/apps/{app}/env")).expect(200).json();
                // Each write changed both, and none is seen by half.
                assert_eq!(env["env"][0]["value"], env["env"][1]["value"], "{env}");
            }
        }
        done.store(true, Ordering::SeqCst);
    });
}

#[test]
fn p29_a_backup_that_would_eat_what_has_to_stay_free_is_refused_and_leaves_nothing() {
    let server = Server::start();
    let Some(disk) = SmallDisk::at(server.setup().home().join("small")) else { return };
    disk.remount("size=300m");
    let place = server.setup().home().join("small/backup.tgz");
    let refused = server.operator(&["backup", place.to_str().unwrap()]);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(
        refused.stderr.contains("a backup would take what has to stay free: only"),
        "{refused:?}"
    );
    assert_eq!(files(&server.setup().home().join("small")), [""; 0]);
    assert!(!files(&server.data()).contains(&"backup-work".to_owned()));
}

#[test]
fn p29_a_restore_beside_a_running_server_is_refused_and_says_what_to_do() {
    let server = Server::start();
    succeeds(server.setup(), &["backup", "backup.tgz"]);
    let refused = server.operator(&["restore", "backup.tgz"]);
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("the server runs; stop it"), "{refused:?}");
    let setup = server.stop();
    let other = setup.home().join("other.key");
    std::fs::write(&other, "07".repeat(32)).unwrap();
    let pinned = setup.clone().env("BETTER_PAAS_SECRET_KEY", &"08".repeat(32));
    let refused = pinned.run(&["restore", "backup.tgz", "--key-file", other.to_str().unwrap()]);
    assert!(refused.stderr.contains("by BETTER_PAAS_SECRET_KEY; put the right"), "{refused:?}");
    let restored = succeeds(&setup, &["restore", "backup.tgz"]);
    assert!(restored.stdout.starts_with("this is the server of 20"), "{restored:?}");
    let kept = files(&setup.data()).into_iter().find(|name| name.starts_with("before-restore-"));
    let kept = Database::of(setup.clone()).setup().data().join(kept.expect("what was there"));
    assert!(files(&kept).contains(&"better-paas.db".to_owned()));
    setup.start().owner().get("/api/apps").expect(200);
}

#[test]
fn p29_root_writes_the_file_and_the_owner_of_the_data_what_is_in_it() {
    if !rustix::process::getuid().is_root() {
        return;
    }
    let server = Setup::new().as_user().start();
    let roots = tempfile::tempdir().unwrap();
    let file: PathBuf = roots.path().join("backup.tgz");
    let program = server.setup().command(&["version"]);
    let program: PathBuf = std::iter::once(program.get_program())
        .chain(program.get_args())
        .map(PathBuf::from)
        .find(|word| word.ends_with("server"))
        .expect("the program");
    let made = Command::new(program)
        .arg("backup")
        .arg(&file)
        .env("DATA_DIR", server.data())
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    let about = file.metadata().unwrap();
    assert_eq!((about.uid(), about.mode() & 0o777), (0, 0o600));
    let owner = server.data().metadata().unwrap().uid();
    let work = server.data().join("backup-lock").metadata().unwrap().uid();
    assert_eq!(work, owner, "nothing of root's is among the data");
}
