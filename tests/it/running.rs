//! What runs after a deploy: the switch, stop and start, crashes, the server's own restart.

use crate::harness::apps::{PLAIN, create, deploy, deploy_live, ended, restart, show, visitor};
use crate::harness::{GitServer, Http, Server, Setup, until};
use serde_json::json;
use std::net::SocketAddr;
use std::time::Duration;

#[track_caller]
fn wait_for_status(owner: &mut Http, app: &str, wanted: &str) {
    until(&format!("the app is {wanted}"), Duration::from_secs(60), || {
        show(owner, app)["status"] == wanted
    });
}

/// A log's lines that are the platform's own, as what was said at which time.
fn timed<'a>(log: &'a str, before: &str) -> Vec<(&'a str, &'a str)> {
    let form = |time: &str| time.replace(|c: char| c.is_ascii_digit(), "0");
    let split = |line: &'a str| line.strip_prefix(before)?.split_once(" UTC ");
    let timed = log.lines().filter_map(split);
    timed.filter(|(time, _)| form(time) == "0000-00-00 00:00:00").collect()
}

/// Takes its time to end, and says when it is not alone with its `/data`.
const SLOW_TO_END: &str = "\
import fcntl, os, signal, time
lock = open('/data/lock', 'w')
try: fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
except OSError: print('another one works in /data')
signal.signal(signal.SIGTERM, lambda *_: (time.sleep(1), os._exit(0)))
";

/// A server with one small running app, with more at the beginning of its program.
fn with_a_plain_app(more: &str) -> (GitServer, Server, Http, String) {
    let git = GitServer::start();
    git.commit("plain", &[PLAIN[0], ("main.py", &format!("{more}{}", PLAIN[1].1))]);
    let server = Setup::new().as_user().start();
    let mut owner = server.owner();
    let app = create(&mut owner, &json!({"name": "plain", "gitRepo": git.url("plain")}));
    deploy_live(&mut owner, &app);
    (git, server, owner, app)
}

#[test]
fn the_old_release_ends_only_after_the_new_one_passed_its_check() {
    let (git, server, mut owner, app) = with_a_plain_app("");
    let old = show(&mut owner, &app);
    let first = owner.get(&format!("/api/apps/{app}/deploys")).expect(200).json();
    let first = first["deploys"][0]["id"].as_str().expect("an id").to_owned();
    let log = owner.get(&format!("/api/deploys/{first}/log")).expect(200).text();
    let steps = timed(&log, "");
    assert!(steps.is_sorted_by_key(|(time, _)| *time), "{log}");
    for step in ["Fetching ", "Commit ", "Starting: ", "Checking ", "Live on port "] {
        assert!(steps.iter().any(|(_, said)| said.starts_with(step)), "{step}: {log}");
    }
    let told = |deploy: &str, how: &str| {
        let log = server.log();
        let of_the_deploy = |line: &&str| line.contains(&format!("app plain: deploy {deploy}"));
        let lines: Vec<&str> = log.lines().filter(of_the_deploy).collect();
        assert!(matches!(lines[..], [line] if line.contains(how)), "{how}: {lines:?}");
    };
    told(&first, ") is live");
    let mut old_visitor = visitor(&mut owner, &app);
    assert_eq!(old_visitor.get("/").text(), "VERSION one");

    // A release that never listens fails, and the old one stays as it was.
    git.commit(
        "plain",
        &[PLAIN[0], ("main.py", "import time; print('not listening'); time.sleep(600)")],
    );
    owner.patch(&format!("/api/apps/{app}"), &json!({"healthTimeoutSeconds": 2})).expect(200);
    let id = deploy(&mut owner, &app);
    let failed = ended(&mut owner, &id);
    assert_eq!(failed["status"], "failed");
    let error = failed["error"].as_str().expect("an error");
    assert!(error.starts_with("checking failed: ") && error.contains("2 seconds"), "{failed}");
    assert!(error.ends_with("; its last lines:\nnot listening"), "{failed}");
    let after = show(&mut owner, &app);
    assert_eq!((&after["url"], &after["status"]), (&old["url"], &json!("running")));
    assert_eq!(visitor(&mut owner, &app).get("/").text(), "VERSION one");

    // One that ends at once says why in its last lines, and one that takes a connection
    // and ends a moment later has proved nothing.
    let fleeting = "import os, socket, time\n\
                    s = socket.create_server(('127.0.0.1', int(os.environ['PORT'])))\n\
                    time.sleep(1); print('about to fail'); raise SystemExit(3)";
    for main in ["print('about to fail'); raise SystemExit(3)", fleeting] {
        git.commit("plain", &[PLAIN[0], ("main.py", main)]);
        let id = deploy(&mut owner, &app);
        let failed = ended(&mut owner, &id);
        let error = failed["error"].as_str().expect("an error");
        assert!(error.contains("about to fail") && error.contains("exit code 3"), "{error}");
        assert_eq!(visitor(&mut owner, &app).get("/").text(), "VERSION one");
    }

    // A good one takes over, and only then is the old process gone.
    let second = PLAIN[1].1.replace("VERSION one", "VERSION two");
    git.commit("plain", &[PLAIN[0], ("main.py", &second)]);
    deploy_live(&mut owner, &app);
    assert_eq!(visitor(&mut owner, &app).get("/").text(), "VERSION two");
    let old_address: SocketAddr =
        old["url"].as_str().unwrap().trim_start_matches("http://").parse().unwrap();
    until("the old process is gone", Duration::from_secs(40), || {
        std::net::TcpStream::connect(old_address).is_err()
    });
}

/// The statuses that an app has until it has the last one, each once; none of them comes with a reason to worry.
#[track_caller]
fn statuses_until(owner: &mut Http, app: &str, last: &str) -> Vec<String> {
    let mut seen = Vec::new();
    until(&format!("the app is {last}"), Duration::from_secs(60), || {
        let now = show(owner, app);
        assert_eq!((&now["statusDetail"], &now["lastExit"]), (&json!(null), &json!(null)), "{now}");
        seen.push(now["status"].as_str().expect("a status").to_owned());
        now["status"] == last
    });
    seen.dedup();
    seen
}

#[test]
fn stop_start_and_restart_do_what_they_say_and_data_survives() {
    let (_git, _server, mut owner, app) = with_a_plain_app(SLOW_TO_END);
    let act = |owner: &mut Http, what: &str| {
        owner.post(&format!("/api/apps/{app}/{what}"), &json!({})).expect(202);
    };
    let first = show(&mut owner, &app)["url"].clone();
    act(&mut owner, "stop");
    // An end that its owner wants is no crash.
    assert_eq!(statuses_until(&mut owner, &app, "stopped"), ["stopping", "stopped"]);
    assert!(show(&mut owner, &app)["url"].is_null());
    let address: SocketAddr =
        first.as_str().unwrap().trim_start_matches("http://").parse().unwrap();
    assert!(std::net::TcpStream::connect(address).is_err(), "it still listens");

    act(&mut owner, "restart");
    statuses_until(&mut owner, &app, "running");
    assert_eq!(visitor(&mut owner, &app).get("/").expect(200).text(), "VERSION one");
    // Wanted again while it ends, it is started when it has.
    act(&mut owner, "stop");
    act(&mut owner, "start");
    assert_eq!(statuses_until(&mut owner, &app, "running"), ["starting", "running"]);
    let log = owner.get(&format!("/api/apps/{app}/log")).expect(200).text();
    assert_eq!(log.matches("plain app starting").count(), 3, "{log}");
    assert!(!log.contains("another one works in /data"), "{log}");

    let before = show(&mut owner, &app)["url"].clone();
    assert_eq!(restart(&mut owner, &app)["status"], "live");
    let now = show(&mut owner, &app);
    assert!(now["status"] == "running" && now["url"] != before, "{now}");
    assert_eq!(visitor(&mut owner, &app).get("/").expect(200).text(), "VERSION one");
}

#[test]
fn an_app_that_ends_again_and_again_is_said_to_at_each_look_until_it_is_mended() {
    let git = GitServer::start();
    let broken = "import sys\nif __import__('os').path.exists('/data/over'): sys.exit(3)\n";
    let breaks = PLAIN[1].1.replace(
        "self.send_response(200)",
        "((open('/data/over', 'w'), os._exit(3)) if self.path == '/exit' else None); self.send_response(200)",
    );
    git.commit("fragile", &[PLAIN[0], ("main.py", &format!("{broken}{breaks}"))]);
    let server = Setup::new().as_user().start();
    let mut owner = server.owner();
    let app = create(&mut owner, &json!({"name": "fragile", "gitRepo": git.url("fragile")}));
    deploy_live(&mut owner, &app);
    let _cut = visitor(&mut owner, &app).try_request("GET", "/exit", None);
    wait_for_status(&mut owner, &app, "crashed");
    let now = show(&mut owner, &app);
    assert!(now["nextStartAt"].is_i64() && now["restarts"] == 0, "{now}");
    wait_for_status(&mut owner, &app, "crash-looping");
    let mut due = 0;
    until("it was started three times", Duration::from_secs(60), || {
        let now = show(&mut owner, &app);
        assert_eq!(now["status"], "crash-looping", "{now}");
        for field in ["statusDetail", "lastExit"] {
            assert_eq!(now[field], "exit code 3", "{now}");
        }
        due += u32::from(now["nextStartAt"].is_i64());
        now["restarts"].as_u64() >= Some(3)
    });
    assert!(due > 0, "it was never said when the next start is");
    // A restart of one that is down starts it anew, if it comes up.
    assert_eq!(restart(&mut owner, &app)["status"], "failed");
    assert_eq!(show(&mut owner, &app)["status"], "crash-looping");
    std::fs::remove_file(server.data().join("apps").join(&app).join("data/over")).expect("a file");
    assert_eq!(restart(&mut owner, &app)["status"], "live");
    let now = show(&mut owner, &app);
    assert_eq!((&now["status"], &now["restarts"]), (&json!("running"), &json!(0)), "{now}");
    assert_eq!((&now["lastExit"], &now["nextStartAt"]), (&json!(null), &json!(null)), "{now}");
}

#[test]
fn a_server_that_stops_leaves_its_apps_running_and_finds_them_again() {
    let (_git, server, mut owner, app) = with_a_plain_app("");
    let before = show(&mut owner, &app);
    let mut visitor = visitor(&mut owner, &app);
    let setup = server.setup().clone();
    let mut server = server;
    server.kill9();
    assert_eq!(visitor.get("/").expect(200).text(), "VERSION one");
    let server = setup.start();
    let mut owner = server.owner();
    let after = show(&mut owner, &app);
    assert_eq!((&after["status"], &after["url"]), (&json!("running"), &before["url"]));
    assert_eq!(visitor.get("/").expect(200).text(), "VERSION one");
    owner.post(&format!("/api/apps/{app}/stop"), &json!({})).expect(202);
    wait_for_status(&mut owner, &app, "stopped");
}

#[test]
fn a_crashed_app_says_how_it_ended_and_comes_back() {
    let git = GitServer::start();
    let fragile = PLAIN[1].1.replace(
        "self.send_response(200)",
        "(os._exit(7) if self.path == '/exit' else None); self.send_response(200)",
    );
    git.commit("fragile", &[PLAIN[0], ("main.py", &fragile)]);
    let server = Setup::new().as_user().start();
    let mut owner = server.owner();
    let app = create(&mut owner, &json!({"name": "fragile", "gitRepo": git.url("fragile")}));
    deploy_live(&mut owner, &app);
    let first = show(&mut owner, &app)["url"].clone();
    let _ = visitor(&mut owner, &app).try_request("GET", "/exit", None);
    until("the log says how it ended, and when", Duration::from_secs(20), || {
        let log = owner.get(&format!("/api/apps/{app}/log")).text();
        let ended = |(_, said): &(&str, &str)| said.starts_with("Ended with exit code 7; ");
        timed(&log, "[better-paas] ").iter().any(ended)
    });
    until("it runs again", Duration::from_secs(30), || {
        let now = show(&mut owner, &app);
        now["status"] == "running" && now["url"] != first
    });
    server.wait_for_log("app fragile: Ended with exit code 7; starting it again in 1 s.");
    owner.delete(&format!("/api/apps/{app}")).expect(204);
    server.wait_for_log(&format!("app fragile ({app}) was deleted"));
}
