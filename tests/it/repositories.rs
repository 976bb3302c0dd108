//! Repositories as people have them: monorepos, branches, submodules, large files, hosts that change their mind.

use crate::harness::apps::{PLAIN, SHOW, create, deploy_live, fails, visitor};
use crate::harness::git::{FILE, FOLDER, SUBMODULE};
use crate::harness::server::run;
use crate::harness::{GitServer, Http, Setup, a_token};
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;

/// Which `VERSION` the app's repository has, as its build sees it.
#[track_caller]
fn version(owner: &mut Http, app: &str) -> String {
    let (error, log) = fails(owner, app);
    let line = log
        .lines()
        .find_map(|line| line.split_once("VERSION ").filter(|(b, _)| !b.contains("echo")));
    line.unwrap_or_else(|| panic!("{error}\n{log}")).1.to_owned()
}

#[track_caller]
fn change(owner: &mut Http, app: &str, fields: &Value) {
    owner.patch(&format!("/api/apps/{app}"), fields).expect(200);
}

fn app(owner: &mut Http, git: &GitServer, name: &str) -> String {
    let (url, start) = (git.url(name), "./never-reached");
    create(
        owner,
        &json!({"name": name, "gitRepo": url, "buildCommand": SHOW, "startCommand": start}),
    )
}

#[test]
fn branches_root_directories_and_rewritten_histories_are_what_is_deployed() {
    let git = GitServer::start();
    let server = Setup::new().as_user().start();
    let mut owner = server.owner();

    let mono = git.plumbing("mono");
    let (one, two) = (mono.blob(b"web one"), mono.blob(b"api two"));
    let web = mono.tree(&[(FILE, b"VERSION", &one)]);
    let api = mono.tree(&[(FILE, b"VERSION", &two)]);
    let apps = mono.tree(&[(FOLDER, b"api", &api), (FOLDER, b"web", &web)]);
    mono.commit("main", &mono.tree(&[(FOLDER, b"apps", &apps)]), "a monorepo");
    let id = app(&mut owner, &git, "mono");
    change(&mut owner, &id, &json!({"rootDir": "/apps/web/"}));
    assert_eq!(owner.get(&format!("/api/apps/{id}")).json()["rootDir"], "apps/web");
    assert_eq!(version(&mut owner, &id), "web one");
    change(&mut owner, &id, &json!({"rootDir": "apps/api"}));
    assert_eq!(version(&mut owner, &id), "api two");
    change(&mut owner, &id, &json!({"rootDir": "apps/none"}));
    assert!(fails(&mut owner, &id).0.contains("no directory apps/none"));

    // The default branch is the remote's, also when it changes; a chosen one is kept.
    let tree = git.plumbing("branches");
    tree.files("trunk", &[("VERSION", "trunk")]);
    tree.files("next", &[("VERSION", "next")]);
    tree.run(&["symbolic-ref", "HEAD", "refs/heads/trunk"]);
    let id = app(&mut owner, &git, "branches");
    assert_eq!(version(&mut owner, &id), "trunk");
    tree.run(&["symbolic-ref", "HEAD", "refs/heads/next"]);
    assert_eq!(version(&mut owner, &id), "next");
    change(&mut owner, &id, &json!({"branch": "trunk"}));
    assert_eq!(version(&mut owner, &id), "trunk");
    // A forced push: another history without a common commit, over the same cache.
    tree.files("trunk", &[("VERSION", "rewritten"), ("other", "x")]);
    assert_eq!(version(&mut owner, &id), "rewritten");
    change(&mut owner, &id, &json!({"branch": "gone"}));
    let (error, _) = fails(&mut owner, &id);
    assert!(error.contains("no branch named gone; it has next, trunk"), "{error}");
    tree.run(&["symbolic-ref", "HEAD", "refs/heads/missing"]);
    change(&mut owner, &id, &json!({"branch": ""}));
    let (error, _) = fails(&mut owner, &id);
    assert!(error.contains("default branch does not exist; it has next, trunk"), "{error}");

    git.plumbing("empty");
    let id = app(&mut owner, &git, "empty");
    let (error, _) = fails(&mut owner, &id);
    assert!(error.contains("the repository is empty"), "{error}");
}

#[test]
fn what_is_not_fetched_is_said_and_what_is_large_is_fetched() {
    let git = GitServer::start();
    let server = Setup::new().as_user().start();
    let mut owner = server.owner();

    let repo = git.plumbing("modules");
    let (version, modules) = (
        repo.blob(b"with a submodule"),
        repo.blob(b"[submodule \"lib\"]\n\tpath = docs/lib\n\turl = ../lib\n"),
    );
    let lib = "1234567890123456789012345678901234567890";
    let docs = repo.tree(&[(SUBMODULE, b"lib", lib)]);
    let web = repo.tree(&[(FILE, b"VERSION", &version)]);
    let top = [
        (FILE, &b".gitmodules"[..], modules.as_str()),
        (FILE, b"VERSION", &version),
        (FOLDER, b"docs", &docs),
        (FOLDER, b"web", &web),
    ];
    repo.commit("main", &repo.tree(&top), "a submodule");
    let id = app(&mut owner, &git, "modules");
    let (error, _) = fails(&mut owner, &id);
    assert!(
        error.contains("has a submodule at docs/lib") && error.contains("git subtree"),
        "{error}"
    );
    change(&mut owner, &id, &json!({"rootDir": "web"}));
    let (_, log) = fails(&mut owner, &id);
    assert!(log.contains("VERSION with a submodule"), "{log}");
    assert!(log.contains("submodule at docs/lib lies outside the root directory"), "{log}");

    let pointer =
        format!("version https://git-lfs.github.com/spec/v1\noid sha256:{:064}\nsize 123456\n", 7);
    let attributes = "*.bin filter=lfs diff=lfs merge=lfs -text\n";
    git.plumbing("lfs").files(
        "main",
        &[
            (".gitattributes", attributes),
            ("VERSION", "with LFS"),
            ("a.bin", &pointer),
            ("b.bin", &pointer),
            ("c.txt", &"x".repeat(130)),
        ],
    );
    let id = app(&mut owner, &git, "lfs");
    let (_, log) = fails(&mut owner, &id);
    assert!(log.contains("VERSION with LFS"), "{log}");
    assert!(
        log.contains("Git LFS keeps the content of 2 files elsewhere (a.bin, for example)"),
        "{log}"
    );

    a_large_one(&git, &mut owner);
}

fn a_large_one(git: &GitServer, owner: &mut Http) {
    // 200 MB that cannot be compressed. Stored as they are: it is the transfer that counts.
    let repo = git.plumbing("large");
    repo.run(&["config", "core.compression", "0"]);
    repo.run(&["config", "core.bigFileThreshold", "1m"]);
    let mut noise = 88_172_645_463_325_252_u64;
    let mut block = || {
        let next = || {
            noise ^= noise << 13;
            noise ^= noise >> 7;
            noise ^= noise << 17;
            noise.to_le_bytes()
        };
        std::iter::repeat_with(next).take(20 << 17).flatten().collect::<Vec<u8>>()
    };
    let blobs: Vec<_> = (0..10).map(|n| (format!("{n}.dat"), repo.blob(&block()))).collect();
    let mut entries: Vec<_> = blobs.iter().map(|(n, b)| (FILE, n.as_bytes(), b.as_str())).collect();
    let version = repo.blob(b"large");
    entries.push((FILE, b"VERSION", &version));
    repo.commit("main", &repo.tree(&entries), "200 MB");
    let id = app(owner, git, "large");
    let build = "echo \"VERSION $(cat *.dat | wc -c)\"; exit 9";
    change(owner, &id, &json!({"buildCommand": build}));
    assert_eq!(self::version(owner, &id), (200_u64 << 20).to_string());
}

#[test]
fn a_repository_that_vanishes_and_a_token_that_is_revoked_are_told_apart() {
    let git = GitServer::start();
    let server = Setup::new().as_user().start();
    let mut owner = server.owner();
    git.plumbing("shop").files("main", &[("VERSION", "one")]);
    let (token, next) = (a_token(), a_token());
    git.require_token(&token);
    let id = app(&mut owner, &git, "shop");
    change(&mut owner, &id, &json!({"gitToken": token}));
    assert_eq!(version(&mut owner, &id), "one");

    git.require_token(&next);
    let (error, log) = fails(&mut owner, &id);
    assert!(error.contains("refused the token") && error.contains("revoked"), "{error}");
    assert!(error.contains("save a new token in the app's settings"), "{error}");
    assert!(!log.contains(&token) && !error.contains(&token));
    change(&mut owner, &id, &json!({"gitToken": null}));
    let (error, _) = fails(&mut owner, &id);
    assert!(error.contains("asks for a login") && error.contains("no token"), "{error}");
    assert!(error.contains("there at an earlier deploy"), "{error}");

    change(&mut owner, &id, &json!({"gitToken": next}));
    assert_eq!(version(&mut owner, &id), "one");
    git.remove("shop");
    let (error, _) = fails(&mut owner, &id);
    assert!(error.contains("not found") && error.contains("removed, renamed"), "{error}");
    assert!(!error.contains("refused"), "{error}");
}

#[test]
fn a_repository_with_sha_256_deploys_and_its_commit_is_named_whole() {
    let git = GitServer::start();
    let place: &Path = git.as_ref();
    let init = ["init", "-q", "--bare", "-b", "main", "--object-format=sha256"];
    run(Command::new("git").args(init).arg(place.join("modern.git")));
    let first = git.commit("modern", &PLAIN);
    let server = Setup::new().as_user().start();
    let mut owner = server.owner();
    let app = create(&mut owner, &json!({"name": "modern", "gitRepo": git.url("modern")}));
    let mut deploys = |commit: &str| {
        let id = deploy_live(&mut owner, &app);
        let now = owner.get(&format!("/api/deploys/{id}")).expect(200).json();
        assert_eq!((now["commit"].as_str(), commit.len()), (Some(commit), 64));
        owner.get(&format!("/api/deploys/{id}/log")).expect(200).text()
    };
    assert!(deploys(&first).contains("by sha256"));
    let second = git.commit("modern", &PLAIN);
    assert!(!deploys(&second).contains("by sha256"), "the cache is used again");
    // It is moved to a host that knows SHA-1 alone, under the same address.
    git.remove("modern");
    git.commit("modern", &PLAIN);
    deploy_live(&mut owner, &app);
    assert_eq!(visitor(&mut owner, &app).get("/").expect(200).text(), "VERSION one");
}
