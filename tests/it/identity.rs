//! Each app is a user of the machine of its own: whose its processes and files are, who may touch them, what stays.

use crate::harness::apps::{create, deploy_live, show};
use crate::harness::checks::{command, found};
use crate::harness::obedient::{OBEDIENT, ask};
use crate::harness::{GitServer, Http, Server, Setup, process, until};
use serde_json::json;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Asks to end and is slow about it, so that it can be told who asked.
const POLITE: &str = "import signal, sys, time, threading\n\
    def bye(*_):\n\
    \x20   open('/data/asked', 'w').write('SIGTERM'); sys.exit(0)\n\
    signal.signal(signal.SIGTERM, bye)\n";

/// Owners of everything below a directory, the directory itself too. What is being removed meanwhile does not count.
fn owners(directory: &Path) -> BTreeSet<u32> {
    let mut found = BTreeSet::new();
    found.extend(fs::symlink_metadata(directory).map(|meta| meta.uid()));
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(owners(&entry.path()));
        } else {
            found.extend(entry.metadata().map(|meta| meta.uid()));
        }
    }
    found
}

/// Processes of a user.
fn processes_of(uid: u32) -> Vec<u32> {
    let owned = |pid: &u32| fs::metadata(format!("/proc/{pid}")).is_ok_and(|m| m.uid() == uid);
    process::all().into_iter().filter(owned).collect()
}

/// A line of shell as another user, outside of every sandbox.
fn as_user(uid: u32, script: &str) -> bool {
    let mut command = Command::new("setpriv");
    command.args([&format!("--reuid={uid}"), &format!("--regid={uid}"), "--clear-groups"]);
    command.args(["--", "sh", "-c", script]).output().expect("setpriv").status.success()
}

struct App {
    id: String,
    uid: u32,
    directory: PathBuf,
}

fn app(server: &Server, owner: &mut Http, git: &GitServer, name: &str) -> App {
    let body = json!({"name": name, "gitRepo": git.url("obedient"), "healthPath": "/",
        "buildCommand": "echo built >built; mkdir -m 700 closed; echo x >closed/x; echo x >/cache/kept; \
                         echo x >$TMPDIR/scratch; ln -s /etc/passwd link"});
    let id = create(owner, &body);
    let deploy = deploy_live(owner, &id);
    let said = ask(
        owner,
        &id,
        "/shell",
        "echo x >/data/file; mkdir -m 700 /data/d; echo x >/data/d/x; id -u",
    );
    let directory = server.data().join("apps").join(&id);
    let release = directory.join("releases").join(deploy);
    let uid = fs::metadata(&release).expect("a release").uid();
    for place in
        [&release, &directory.join("data"), &directory.join("cache"), &directory.join("repo")]
    {
        assert_eq!(owners(place), BTreeSet::from([uid]), "{}", place.display());
    }
    let inside: u32 = said.trim().parse().expect("a number");
    assert!(inside == 1000 || inside == uid, "{inside}");
    assert!(processes_of(uid).len() >= 2, "the app's processes are {uid}");
    App { id, uid, directory }
}

/// The whole story, told for an ordinary user and for root.
fn each_app_is_a_user_of_its_own(setup: Setup, uids: std::ops::Range<u32>) {
    let git = GitServer::start();
    let polite = format!("{POLITE}{}", OBEDIENT[1].1);
    git.commit("obedient", &[OBEDIENT[0], ("main.py", &polite)]);
    let mut server = setup.start();
    let mut owner = server.owner();
    let one = app(&server, &mut owner, &git, "one");
    let two = app(&server, &mut owner, &git, "two");
    assert!(one.uid != two.uid && uids.contains(&one.uid) && uids.contains(&two.uid));
    assert_eq!(
        owner.get("/api/system").expect(200).json()["identity"],
        json!({"perApp": true, "problem": null})
    );

    // From inside: neither the other's processes nor its files can be seen.
    let seen =
        ask(&mut owner, &two.id, "/shell", "ls -d /proc/[0-9]* | wc -l; ls -a / /data; id -G");
    let count: u32 = seen.lines().next().expect("a line").parse().expect("a number");
    assert!(count < 10 && !seen.contains("apps"), "{seen}");
    // From outside, as the other's user: the kernel refuses, sandbox or not.
    let victim = processes_of(one.uid)[0];
    let file = one.directory.join("data/file");
    assert!(as_user(one.uid, &format!("kill -0 {victim}")), "its own user may");
    for forbidden in [
        format!("kill -0 {victim}"),
        format!("cat {}", file.display()),
        format!("cat /proc/{victim}/environ"),
        format!("ls /proc/{victim}/root/"),
        format!("ls {}", server.data().display()),
    ] {
        assert!(!as_user(two.uid, &forbidden), "{forbidden}");
    }

    // A server that was killed finds them again and may still ask them to end.
    server.kill9();
    let server = server.setup().clone().start();
    let mut owner = server.owner();
    assert_eq!(show(&mut owner, &one.id)["status"], "running");
    owner.post(&format!("/api/apps/{}/stop", one.id), &json!({})).expect(202);
    until("it was asked and has ended", Duration::from_secs(20), || {
        processes_of(one.uid).is_empty()
    });
    assert_eq!(
        fs::read_to_string(one.directory.join("data/asked")).expect("SIGTERM came"),
        "SIGTERM"
    );

    // One that is removed leaves nothing, also when it does not want to go.
    ask(&mut owner, &two.id, "/shell", "(trap '' TERM; setsid sleep 600) >/dev/null 2>&1 &");
    for app in [&one, &two] {
        owner.delete(&format!("/api/apps/{}", app.id)).expect(204);
    }
    // It has 30 s to end, and what it writes when it is asked to may fail: its directory is gone.
    until("nothing of them is left", Duration::from_secs(90), || {
        let files = owners(&server.data().join("apps"));
        let alive = processes_of(two.uid).len();
        alive == 0 && !files.contains(&one.uid) && !files.contains(&two.uid)
    });
    assert!(!one.directory.exists() && !two.directory.exists());
}

#[test]
fn each_app_is_a_user_of_its_own_under_an_ordinary_user() {
    let first = subordinate(&std::env::var("BETTER_PAAS_TEST_USER").expect("a user"));
    each_app_is_a_user_of_its_own(Setup::new().as_user(), first..first + 60_000);
}

#[test]
fn each_app_is_a_user_of_its_own_under_root() {
    if !rustix::process::getuid().is_root() {
        eprintln!("NOT TESTED: this takes root");
        return;
    }
    each_app_is_a_user_of_its_own(Setup::new(), 1_900_000_000..1_900_060_000);
}

/// The first uid that `/etc/subuid` gives to a user.
fn subordinate(user: &str) -> u32 {
    let text = fs::read_to_string("/etc/subuid").expect("a file");
    let line = text.lines().find(|line| line.starts_with(&format!("{user}:"))).expect("a range");
    line.split(':').nth(1).expect("a start").parse().expect("a number")
}

#[test]
fn without_a_range_of_uids_apps_share_the_servers_user_and_it_is_said() {
    let git = GitServer::start();
    git.commit("obedient", &OBEDIENT);
    let server = Setup::new().as_user().without_subordinate_uids().start();
    let mut owner = server.owner();
    let app = create(
        &mut owner,
        &json!({"name": "one", "gitRepo": git.url("obedient"), "healthPath": "/"}),
    );
    deploy_live(&mut owner, &app);
    let system = owner.get("/api/system").expect(200).json();
    let problem = system["identity"]["problem"].as_str().expect("a problem");
    assert!(problem.contains("/etc/subuid") && problem.contains(":65536"), "{problem}");
    assert_eq!(system["identity"]["perApp"], false);
    // P28: so says the checklist, with the command that mends it.
    let seen = found(&mut owner, "identity", "warn");
    assert!(command(&seen).contains(":65536"), "{seen}");
    assert!(
        system["firewall"]["problem"].as_str().is_some_and(|p| p.contains("users of their own"))
    );
    let uid = fs::metadata(server.data()).expect("it is there").uid();
    assert_eq!(owners(&server.data().join("apps").join(&app)), BTreeSet::from([uid]));
}

#[test]
fn a_static_site_whose_build_sealed_its_files_is_published_all_the_same() {
    let git = GitServer::start();
    git.commit("site", &[("index.html", "front"), ("page.html", "page")]);
    let server = crate::harness::routed::start(Setup::routed().as_user());
    let mut owner = server.owner();
    let app = create(
        &mut owner,
        &json!({"name": "site", "gitRepo": git.url("site"),
            "buildCommand": "mkdir d && echo below >d/x.html && chmod 600 page.html && chmod 700 d ."}),
    );
    deploy_live(&mut owner, &app);
    let mut visitor = server.visitor("site.localhost");
    assert_eq!(visitor.get("/page.html").expect(200).text(), "page");
    assert_eq!(visitor.get("/d/x.html").expect(200).text(), "below\n");
}
