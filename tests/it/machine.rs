//! What the server finds out about its machine: by trying, in a thread of its own, so that nobody waits for it.

use crate::harness::apps::create;
use crate::harness::webhook::{GITHUB, an_app, deliver, github};
use crate::harness::{GitServer, Setup};
use serde_json::json;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

/// Far less than a look at the machine takes before it is given up.
const AT_ONCE: Duration = Duration::from_secs(15);

#[test]
fn no_request_waits_for_a_look_at_the_machine_and_neither_does_the_end() {
    if !rustix::process::getuid().is_root() {
        eprintln!("NOT TESTED: only root puts another program in bubblewrap's place");
        return;
    }
    let git = GitServer::start();
    let setup = Setup::new().as_user();
    let slow = setup.home().join("bwrap");
    std::fs::write(&slow, "#!/bin/sh\nsleep 600\n").expect("a program");
    std::fs::set_permissions(&slow, PermissionsExt::from_mode(0o755)).expect("a mode");
    let mut server = setup.instead_of("/usr/bin/bwrap", &slow).start();
    let mut owner = server.owner();
    let begun = Instant::now();
    let system = owner.get("/api/system").expect(200).json();
    assert!(
        system["runtime"]["message"].as_str().is_some_and(|m| m.contains("a moment")),
        "{system}"
    );
    let app = create(&mut owner, &json!({"name": "one", "gitRepo": git.url("none")}));
    owner.get(&format!("/api/apps/{app}")).expect(200);
    let deploy = owner.post(&format!("/api/apps/{app}/deploys"), &json!({})).expect(202).json();
    let (pushed_to, secret) = an_app(&mut owner, "two", &json!({}));
    let headers = github(&secret, "push", GITHUB);
    let pushed = deliver(server.stranger(), &pushed_to, &headers, GITHUB).expect(202).json();
    assert_eq!(pushed["result"], "queued", "{pushed}");
    // There is nothing to go back to yet, which is found out without the machine.
    let back = format!("/api/apps/{app}/rollback");
    owner.post(&back, &json!({"deployId": deploy["id"]})).expect(409);
    let system = owner.get("/api/system").expect(200).json();
    assert_eq!((&system["runtime"]["ready"], &deploy["status"]), (&json!(false), &json!("queued")));
    assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
    let (status, took) = server.terminate();
    assert!(status.success(), "{status} after {took:?}");
}
