//! Releases of an app have the same packages as one file each, which none of them can write to.

use crate::harness::apps::{DEPLOY_LIMIT, create, deploy_live, fails, roll_back, visitor};
use crate::harness::obedient::{OBEDIENT, ask};
use crate::harness::{GitServer, Setup, until};
use serde_json::json;
use std::fs;
use std::os::unix::fs::MetadataExt as _;

/// What a build installs: two packages, and what a tool writes beside them.
const BUILD: &str = "mkdir -p node_modules/one/bin node_modules/.cache && \
    head -c 3000000 /dev/zero >node_modules/one/large && echo cached >node_modules/.cache/file && \
    echo 'echo run' >node_modules/one/bin/tool && chmod 4755 node_modules/one/bin/tool && \
    cp VERSION node_modules/one/version && \
    echo own >own && ln own node_modules/one/linked && ln -s /etc/passwd node_modules/one/link && \
    mkfifo node_modules/one/pipe";

#[test]
fn p35_a_release_shares_packages_with_the_one_before_and_cannot_change_that() {
    for setup in [Setup::new().as_user(), Setup::new()] {
        shares_packages(setup);
    }
}

fn shares_packages(setup: Setup) {
    let git = GitServer::start();
    let files = |version: &'static str| {
        [OBEDIENT[0], OBEDIENT[1], ("VERSION", version), ("vendor/state", "0")]
    };
    git.commit("shop", &files("one"));
    let server = setup.start();
    let mut owner = server.owner();
    let body = json!({"name": "shop", "gitRepo": git.url("shop"), "buildCommand": BUILD});
    let app = create(&mut owner, &body);
    let first = deploy_live(&mut owner, &app);
    let place = |deploy: &str, file: &str| {
        server.data().join(format!("apps/{app}/releases/{deploy}/{file}"))
    };
    let about = |deploy: &str, file: &str| fs::metadata(place(deploy, file)).expect("it is there");
    let shell = |owner: &mut _, text: &str| ask(owner, &app, "/shell", text);

    // The app runs its packages and cannot write to them, nor have them be another's.
    assert_eq!(shell(&mut owner, "sh node_modules/one/bin/tool"), "run\n");
    for what in ["echo x >>", "chmod u+w", "touch", "truncate -s 1"] {
        let said = shell(&mut owner, &format!("{what} node_modules/one/large && echo done"));
        assert!(!said.contains("done") && !said.is_empty(), "{what}: {said}");
    }
    assert_eq!(about(&first, "node_modules/one/bin/tool").mode() & 0o7777, 0o555);
    // The rest is the app's: its cache, what has another name outside, the directories.
    let said = shell(
        &mut owner,
        "for f in node_modules/.cache/file own vendor/state; do echo 1 >$f && echo done; done; \
         mv node_modules/one/version away && cp away node_modules/one/version && echo done",
    );
    assert_eq!(said, "done\ndone\ndone\ndone\n");

    git.commit("shop", &files("two"));
    let second = deploy_live(&mut owner, &app);
    let same = |file: &str| about(&first, file).ino() == about(&second, file).ino();
    assert!(same("node_modules/one/large") && same("node_modules/one/bin/tool"));
    for other in ["node_modules/one/version", "node_modules/.cache/file", "own", "main.py"] {
        assert!(!same(other), "{other}");
    }
    let log = owner.get(&format!("/api/deploys/{second}/log")).text();
    assert!(log.contains("2 MiB of it are files of the live release"), "{log}");

    // What one puts in the place of a file is not in the other, and nobody shares it.
    let put = "rm -f node_modules/one/large; head -c 3000000 /dev/zero >node_modules/one/large && chmod 444 node_modules/one/large && \
               echo done";
    assert_eq!(shell(&mut owner, put), "done\n");
    assert!(!same("node_modules/one/large"));
    let third = deploy_live(&mut owner, &app);
    assert_ne!(
        about(&second, "node_modules/one/large").ino(),
        about(&third, "node_modules/one/large").ino()
    );
    let said = shell(&mut owner, "echo x >>node_modules/one/large");
    assert!(said.contains("Permission denied"), "{said}");
    assert_eq!(about(&third, "node_modules/one/large").len(), 3_000_000);

    // Removed with their release, not with another's; and going back works.
    roll_back(&mut owner, &app, &first);
    assert_eq!(visitor(&mut owner, &app).get("/").expect(200).text(), "ready");
    owner.patch(&format!("/api/apps/{app}"), &json!({"buildCommand": "exit 9"})).expect(200);
    fails(&mut owner, &app);
    assert_eq!(about(&first, "node_modules/one/large").len(), 3_000_000);
    owner.delete(&format!("/api/apps/{app}")).expect(204);
    let apps = server.data().join("apps");
    until("its files are gone", DEPLOY_LIMIT, || fs::read_dir(&apps).expect("apps").count() == 0);
}
