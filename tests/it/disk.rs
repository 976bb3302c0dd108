//! A machine that is left alone does not fill up: releases, caches and logs are bounded.

use crate::deploy::{PLAIN, create, deploy, deploy_live, ended, show, visitor};
use crate::harness::{GitServer, Server, Setup, Ws, hex, random, until};
use crate::start_and_stop::SmallDisk;
use serde_json::json;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);

/// An app that is there at once, a hundred times.
const QUICK: [(&str, &str); 2] = [
    ("Procfile", "web: exec python3 -S main.py\n"),
    (
        "main.py",
        "import os, socket\n\
         s = socket.create_server(('127.0.0.1', int(os.environ['PORT'])))\n\
         while True:\n\
         \x20   c, _ = s.accept(); c.recv(1000); c.sendall(b'HTTP/1.0 200 OK\\r\\n\\r\\n'); c.close()\n",
    ),
];

/// Bytes on the disk that a directory with everything in it takes, and the number of files.
fn taken(directory: &Path) -> (u64, u64) {
    let mut sum = (0, 0);
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        // A file may go while we look.
        let Ok(meta) = entry.metadata() else { continue };
        let below = if meta.is_dir() { taken(&entry.path()) } else { (0, 1) };
        sum = (sum.0 + meta.blocks() * 512 + below.0, sum.1 + below.1);
    }
    sum
}

fn count(directory: &Path, suffix: &str) -> usize {
    let names = std::fs::read_dir(directory).into_iter().flatten().flatten();
    names.filter(|e| e.file_name().to_string_lossy().ends_with(suffix)).count()
}

#[test]
fn after_a_hundred_deploys_only_the_kept_releases_and_the_cache_take_space() {
    const SIZE: usize = 64 * 1024;
    let git = GitServer::start();
    let server = Setup::new().as_user().start();
    let mut owner = server.owner();
    let app = json!({"name": "site", "gitRepo": git.url("site"), "healthPath": "/"});
    let app = create(&mut owner, &app);
    for number in 0..100 {
        let incompressible = hex(&random::<{ SIZE / 2 }>());
        let version = number.to_string();
        git.commit(
            "site",
            &[QUICK[0], QUICK[1], ("version", &version), ("photo", &incompressible)],
        );
        deploy_live(&mut owner, &app);
    }
    let (data, place) = (server.data(), server.data().join("apps").join(&app));
    // The live one and five before it, each with its recipe.
    until("only kept releases are there", LIMIT, || {
        count(&place.join("releases"), "") == 2 * 6
            && count(&place.join("exits"), "") == 1
            && count(&data.join("apps/.trash"), "") == 0
    });
    let packs = count(&place.join("repo/objects/pack"), ".pack");
    assert!((1..=20).contains(&packs), "{packs} packs");
    assert!(count(&data.join("logs/deploys"), ".log") <= 101);
    // The database and its journal, a few MiB, do not grow with what is deployed.
    let (bytes, files) = taken(&data.join("apps"));
    let kept = 6 + 20;
    assert!(bytes < (2 * kept * SIZE) as u64, "{bytes} bytes");
    assert!(files < 500, "{files} files");
}

#[test]
fn an_app_that_floods_its_log_is_not_held_up_and_the_log_stays_bounded() {
    const FLOOD: u64 = 25 << 20;
    let git = GitServer::start();
    let flooding =
        PLAIN[1].1.replace("self.send_response(200)", "flood(self.path); self.send_response(200)");
    let flooding = format!(
        "def flood(path):\n    if path != '/flood': return\n    \
         for n in range({FLOOD} // 1024): print(f'{{n:06}} ' + 'x' * 1016)\n    \
         print('the flood is over')\n{flooding}"
    );
    git.commit("flood", &[PLAIN[0], ("main.py", flooding.as_str())]);
    let server = Setup::new().as_user().start();
    let mut owner = server.owner();
    let app = json!({"name": "flood", "gitRepo": git.url("flood"), "healthPath": "/"});
    let app = create(&mut owner, &app);
    deploy_live(&mut owner, &app);
    let url = show(&mut owner, &app)["url"].clone();
    let mut follower = follow(&server, &app);
    for _ in 0..2 {
        assert_eq!(visitor(&mut owner, &app).get("/flood").expect(200).text(), "VERSION one");
        let over = |message: &serde_json::Value| {
            let lines = message["lines"].as_array()?;
            lines.iter().any(|l| l == "the flood is over").then_some(())
        };
        follower.find(LIMIT, over);
        let tail = owner.get(&format!("/api/apps/{app}/log?lines=3")).expect(200).text();
        assert!(tail.contains("the flood is over"), "{tail}");
    }
    let logs = server.data().join("logs/apps");
    until("the log is cut", LIMIT, || taken(&logs).0 <= 30 << 20);
    let now = show(&mut owner, &app);
    assert_eq!((&now["status"], &now["url"]), (&json!("running"), &url));
    assert_eq!(visitor(&mut owner, &app).get("/").expect(200).text(), "VERSION one");
}

fn follow(server: &Server, app: &str) -> Ws {
    let path = format!("/ws/apps/{app}/log?token={}", server.token());
    Ws::at(server.address(), &path).open().expect("a session")
}

#[test]
fn a_nearly_full_disk_refuses_a_deploy_with_a_sentence() {
    let setup = Setup::new();
    let Some(disk) = SmallDisk::at(setup.data()) else {
        assert!(std::env::var_os("CI").is_none(), "this needs the right to mount; CI has it");
        eprintln!("not tried: no right to mount a small file system here");
        return;
    };
    disk.remount("size=64m");
    let git = GitServer::start();
    git.commit("plain", &PLAIN);
    let server = setup.start();
    let mut owner = server.owner();
    let app = create(&mut owner, &json!({"name": "plain", "gitRepo": git.url("plain")}));
    let id = deploy(&mut owner, &app);
    let failed = ended(&mut owner, &id);
    let error = failed["error"].as_str().unwrap_or_default();
    assert_eq!(failed["status"], "failed");
    assert!(error.contains("of 64 MiB of disk are free") && error.contains("free some"), "{error}");
    assert!(git.seen().is_empty(), "nothing was fetched");
    drop(server.stop());
    drop(disk);
}
