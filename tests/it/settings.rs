//! Settings and limits with which the server cannot do what they say: it says so, and does not start.

use crate::harness::{Setup, process};
use rustix::process::Signal;

/// The one error of a start that fails.
#[track_caller]
fn refused(setup: &Setup) -> String {
    let finished = setup.run(&[]);
    assert_eq!(finished.code, Some(1), "{finished:#?}");
    finished.stderr
}

#[test]
fn a_setting_that_cannot_do_what_it_says_is_refused() {
    let foreign = refused(&Setup::routed().env("ROUTER_BIND", "192.0.2.7"));
    assert!(foreign.contains("ROUTER_BIND is not an address of this machine"), "{foreign}");
    let unserved = refused(&Setup::new().env("DASHBOARD_DOMAIN", "paas.example.com"));
    assert!(unserved.contains("DASHBOARD_DOMAIN is served by the router"), "{unserved}");
}

#[test]
fn a_setting_that_is_ignored_is_told_and_starts() {
    let server =
        Setup::new().env("TRUSTED_PROXY", "true").env("ACME_EMAIL", "a@example.com").start();
    let log = server.log();
    assert!(log.contains("TRUSTED_PROXY is no setting of this server"), "{log}");
    assert!(log.contains("is it TRUST_PROXY?"), "{log}");
    assert!(log.contains("ACME_EMAIL has no effect: ROUTER is off"), "{log}");
    assert!(!Setup::new().start().log().contains("WARN"), "nothing to tell");
}

#[test]
fn with_limits_under_which_it_would_answer_nobody_it_does_not_start() {
    let files = refused(&Setup::new().shell("ulimit -n 24"));
    assert!(files.contains("the limit of open files is 24"), "{files}");
    assert!(files.contains("LimitNOFILE="), "{files}");
    let data = refused(&Setup::new().shell("ulimit -d 32768"));
    assert!(data.contains("the limit of memory for data is 32 MiB"), "{data}");
    assert!(data.contains("LimitDATA="), "{data}");
}

#[test]
fn under_nohup_it_outlives_its_terminal() {
    let mut server = Setup::new().shell("trap '' HUP").start();
    process::signal(server.pid(), Signal::HUP);
    server.owner().get("/api/session").expect(200);
    let (status, _) = server.terminate();
    assert_eq!(status.code(), Some(0));
    assert!(server.log().contains("stopping (SIGTERM)"), "{}", server.log());
}
