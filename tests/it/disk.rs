//! A machine that is left alone does not fill up: releases, caches and logs are bounded.

use crate::harness::apps::{PLAIN, create, deploy, deploy_live, ended, show, visitor};
use crate::harness::git::FILE;
use crate::harness::small_disk::SmallDisk;
use crate::harness::{GitServer, Http, Server, Setup, Ws, hex, random, until};
use serde_json::json;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
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
    // A few more than are remembered.
    for number in 0..104 {
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
            && count(&data.join("logs/deploys"), ".log") == 100
    });
    let packs = count(&place.join("repo/objects/pack"), ".pack");
    assert!((1..=20).contains(&packs), "{packs} packs");
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

/// MiB of a disk on which a small deploy has room: 500 stay free, and the program that comes first
/// in each sandbox, a copy of the server with what a debugger needs, takes some.
const DISK: u32 = 564;

/// A server's surroundings whose data lies on a disk of its own; nothing where this may not
/// be had.
fn on_a_disk_of(mib: u32) -> Option<(Setup, SmallDisk)> {
    let setup = Setup::new();
    let Some(disk) = SmallDisk::at(setup.data()) else {
        assert!(std::env::var_os("CI").is_none(), "this needs the right to mount; CI has it");
        eprintln!("not tried: no right to mount a small file system here");
        return None;
    };
    disk.remount(&format!("size={mib}m"));
    Some((setup, disk))
}

/// MiB that are free where the data is.
fn free(data: &Path) -> u64 {
    let stat = rustix::fs::statvfs(data).expect("a file system");
    (stat.f_bavail * stat.f_frsize) >> 20
}

/// Makes the disk so small that it is full to its last byte: at once, as whoever fills one
/// may be quicker than whoever looks.
fn fill(data: &Path) {
    until("the disk is full", LIMIT, || {
        let stat = rustix::fs::statvfs(data).expect("a file system");
        let used = (stat.f_blocks - stat.f_bfree) * stat.f_frsize;
        let mut mount = Command::new("mount");
        mount.args(["-o", &format!("remount,size={used}")]).arg(data);
        // Not, when somebody has written meanwhile.
        mount.output().expect("mount runs").status.success()
    });
}

/// Whether no release of an app is left, nor what was put aside beside it to be removed.
fn is_cleared(data: &Path, app: &str) -> bool {
    count(&data.join("apps").join(app).join("releases"), "") == 0
}

/// A repository with one file of so many bytes, which cannot be compressed.
fn commit_noise(git: &GitServer, name: &str, bytes: usize) {
    let repository = git.plumbing(name);
    let mut noise = vec![0; bytes];
    getrandom::fill(&mut noise).expect("random bytes");
    let blob = repository.blob(&noise);
    repository.commit("main", &repository.tree(&[(FILE, b"noise", &blob)]), "noise");
}

/// An app whose build takes 20 MB and does not end; deployed until it has taken them.
fn wasteful(owner: &mut Http, git: &GitServer) -> (String, String) {
    let build = "head -c 20000000 /dev/urandom >waste; echo taken; sleep 600";
    let app = json!({"name": "waste", "gitRepo": git.url("plain"), "buildCommand": build});
    let app = create(owner, &app);
    let id = deploy(owner, &app);
    log_says(owner, &id, "taken");
    (app, id)
}

fn log_says(owner: &mut Http, deploy: &str, text: &str) {
    until(text, LIMIT, || {
        let log = owner.get(&format!("/api/deploys/{deploy}/log")).text();
        log.lines().any(|line| line.ends_with(text))
    });
}

fn error_of(owner: &mut Http, deploy: &str) -> String {
    let deploy = ended(owner, deploy);
    assert_eq!(deploy["status"], "failed", "{deploy}");
    deploy["error"].as_str().expect("an error").to_owned()
}

fn error_of_build(owner: &mut Http, app: &str, command: &str) -> String {
    let path = format!("/api/apps/{app}");
    owner.patch(&path, &json!({"buildCommand": command})).expect(200);
    let id = deploy(owner, app);
    let error = error_of(owner, &id);
    owner.patch(&path, &json!({"buildCommand": ""})).expect(200);
    error
}

#[test]
fn what_does_not_fit_on_the_disk_gives_its_space_back_and_no_app_notices() {
    // A deploy must leave 500 MiB free.
    let Some((setup, disk)) = on_a_disk_of(DISK) else { return };
    let git = GitServer::start();
    git.commit("plain", &PLAIN);
    commit_noise(&git, "big", 20 << 20);
    let data = setup.data();
    let server = setup.start();
    let mut owner = server.owner();
    let plain = create(&mut owner, &json!({"name": "plain", "gitRepo": git.url("plain")}));
    deploy_live(&mut owner, &plain);
    let mut visitor = visitor(&mut owner, &plain);

    // Its pack fits, its files beside the pack do not.
    let before = free(&data);
    let big = json!({"name": "big", "gitRepo": git.url("big"), "startCommand": "sleep 60"});
    let big = create(&mut owner, &big);
    let id = deploy(&mut owner, &big);
    let error = error_of(&mut owner, &id);
    assert!(error.contains("files of the commit are larger than"), "{error}");
    assert!(error.contains("MiB, for which the disk has room"), "{error}");
    until("its space is back", LIMIT, || free(&data) + 2 >= before);

    // This one is quicker than whoever looks at the disk.
    let build = "for n in $(seq 30); do fallocate -l 25M all$n; done; sleep 600";
    let error = error_of_build(&mut owner, &plain, build);
    assert!(error.contains("the build was ended: only"), "{error}");
    until("its space is back, too", LIMIT, || free(&data) + 2 >= before);

    // One file that takes it all at once.
    let error = error_of_build(&mut owner, &plain, "truncate -s 40M all");
    assert!(error.contains("into one file than it may"), "{error}");

    // A build is ended when the disk fills up beside it; one that waits does not begin.
    let (wasteful, waste) = wasteful(&mut owner, &git);
    let next = json!({"name": "next", "gitRepo": git.url("plain"), "buildCommand": "true"});
    let next = create(&mut owner, &next);
    let next = deploy(&mut owner, &next);
    log_says(&mut owner, &next, "Waiting until another app's build has ended");
    // A fetch that is under way is ended too.
    git.hold();
    let asked = git.seen().len();
    let held = deploy(&mut owner, &big);
    until("the fetch has begun", LIMIT, || git.seen().len() > asked);
    fill(&data);
    until("what it took is removed before it is noted", LIMIT, || is_cleared(&data, &wasteful));
    let error = error_of(&mut owner, &waste);
    assert!(error.contains("the build was ended: only"), "{error}");
    let error = error_of(&mut owner, &next);
    assert!(error.contains("building failed: only"), "{error}");
    let error = error_of(&mut owner, &held);
    assert!(error.contains("fetching failed: the fetch was ended: only"), "{error}");
    git.release();
    assert_eq!(visitor.get("/").expect(200).text(), "VERSION one");
    assert_eq!(show(&mut owner, &plain)["status"], "running");
    disk.remount(&format!("size={DISK}m"));
    deploy_live(&mut owner, &plain);

    // Nothing of an app that is gone stays: what stands in for `/etc`'s files is no file, and all
    // apps have the same two of ours.
    owner.delete(&format!("/api/apps/{big}")).expect(204);
    assert!(["init", "seccomp"].iter().all(|name| data.join("sandbox").join(name).is_file()));
    assert_eq!(count(&data.join("sandbox"), ""), 2);
    drop(server);
    drop(disk);
}

#[test]
fn a_server_starts_on_a_full_disk_when_a_deploy_has_filled_it() {
    let Some((setup, disk)) = on_a_disk_of(DISK) else { return };
    let git = GitServer::start();
    git.commit("plain", &PLAIN);
    let data = setup.data();
    let mut server = setup.start();
    let mut owner = server.owner();
    let plain = create(&mut owner, &json!({"name": "plain", "gitRepo": git.url("plain")}));
    deploy_live(&mut owner, &plain);
    let url = show(&mut owner, &plain)["url"].clone();

    let (waste, id) = wasteful(&mut owner, &git);
    server.kill9();
    fill(&data);
    let server = server.setup().clone().start();
    assert!(server.log().contains("the disk is full; removing"), "{}", server.log());
    let mut owner = server.owner();
    let error = error_of(&mut owner, &id);
    assert!(error.contains("the server stopped while this deploy was building"), "{error}");
    assert_eq!(count(&data.join("apps").join(&waste).join("releases"), ""), 0);
    let now = show(&mut owner, &plain);
    assert_eq!((&now["status"], &now["url"]), (&json!("running"), &url));
    assert_eq!(visitor(&mut owner, &plain).get("/").expect(200).text(), "VERSION one");
    disk.remount(&format!("size={DISK}m"));
    drop(server);
    drop(disk);
}

#[test]
fn build_caches_have_a_bound_and_give_way_when_the_disk_gets_short() {
    // One may have 70 MiB of it, and deploys have 200 less some that come with the server.
    let Some((setup, disk)) = on_a_disk_of(700) else { return };
    let git = GitServer::start();
    git.commit("plain", &PLAIN);
    let data = setup.data();
    let server = setup.start();
    let mut owner = server.owner();
    let mut built = |name: &str, fill: &str| {
        let fill =
            format!("fill() {{ mkdir -p /cache/$1; fallocate -l $2M /cache/$1/x; }}; {fill}");
        let app = json!({"name": name, "gitRepo": git.url("plain"), "buildCommand": fill});
        let app = create(&mut owner, &app);
        deploy_live(&mut owner, &app);
        data.join("apps").join(app).join("cache")
    };
    let bounded = built("bounded", "fill small 10; fill large 50; fill larger 60");
    until("its largest part is gone", LIMIT, || !bounded.join("larger").exists());
    assert!(bounded.join("small/x").exists() && bounded.join("large/x").exists());
    let last = built("last", "fill tool 60");
    until("the one that was built before gives way", LIMIT, || !bounded.exists());
    assert!(last.join("tool/x").exists());
    assert!(server.log().contains("the disk gets short: the build cache of app"));
    drop(server);
    drop(disk);
}

#[test]
fn a_nearly_full_disk_refuses_a_deploy_with_a_sentence() {
    let Some((setup, disk)) = on_a_disk_of(64) else { return };
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
    drop(server);
    drop(disk);
}

/// Makes empty files in a directory until it is ended, whatever the system says.
const FILL: &str = "import os, sys\n\
    os.makedirs(sys.argv[1]); os.chdir(sys.argv[1]); n = 0\n\
    while True:\n\
    \x20   n += 1\n\
    \x20   try: open(str(n), 'w').close()\n\
    \x20   except OSError: pass\n";

/// Inodes that are free where the data is.
fn free_files(data: &Path) -> u64 {
    rustix::fs::statvfs(data).expect("a file system").f_favail
}

#[test]
fn a_build_that_takes_all_inodes_is_ended_and_the_token_can_be_rotated_meanwhile() {
    let Some((setup, disk)) = on_a_disk_of(2000) else { return };
    disk.remount("nr_inodes=100000");
    let git = GitServer::start();
    git.commit("plain", &[PLAIN[0], PLAIN[1], ("fill.py", FILL)]);
    let data = setup.data();
    let server = setup.start();
    let mut owner = server.owner();
    let plain = create(&mut owner, &json!({"name": "plain", "gitRepo": git.url("plain")}));
    deploy_live(&mut owner, &plain);
    let before = free_files(&data);
    for at in ["/app/many", "/cache/many"] {
        let build = json!({"buildCommand": format!("python3 -S fill.py {at}")});
        owner.patch(&format!("/api/apps/{plain}"), &build).expect(200);
        let id = deploy(&mut owner, &plain);
        let mut running = true;
        while running {
            owner.post("/api/security/rotate-token", &json!({})).expect(200);
            owner = server.owner();
            let deploy = owner.get(&format!("/api/deploys/{id}")).expect(200).json();
            running = deploy["finishedAt"].is_null();
        }
        let error = error_of(&mut owner, &id);
        assert!(error.contains("the build was ended: only"), "{error}");
        assert!(error.contains("of 100000 inodes of the disk are free"), "{error}");
        until("its files are gone", LIMIT, || free_files(&data) + 50 > before);
    }
    drop(server);
    drop(disk);
}

#[test]
fn a_server_starts_when_a_deploy_has_taken_the_last_inode() {
    let Some((setup, disk)) = on_a_disk_of(2000) else { return };
    let git = GitServer::start();
    git.commit("plain", &PLAIN);
    let data = setup.data();
    let mut server = setup.start();
    let mut owner = server.owner();
    let build = "for n in $(seq 5000); do : >$n; done; echo taken; sleep 600";
    let app = json!({"name": "waste", "gitRepo": git.url("plain"), "buildCommand": build});
    let app = create(&mut owner, &app);
    let id = deploy(&mut owner, &app);
    log_says(&mut owner, &id, "taken");
    server.kill9();
    until("no inode is left", LIMIT, || {
        let stat = rustix::fs::statvfs(&data).expect("a file system");
        let options = format!("remount,nr_inodes={}", stat.f_files - stat.f_ffree);
        let mut mount = Command::new("mount");
        mount.args(["-o", &options]).arg(&data);
        mount.output().expect("mount runs").status.success() && free_files(&data) == 0
    });
    let server = server.setup().clone().start();
    assert!(server.log().contains("the disk is full; removing"), "{}", server.log());
    let error = error_of(&mut server.owner(), &id);
    assert!(error.contains("the server stopped while this deploy was building"), "{error}");
    drop(server);
    drop(disk);
}
