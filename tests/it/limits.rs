//! What an app may take of the machine: each limit bites, or the API says that it is not in force and why.

use crate::harness::apps::{create, deploy, deploy_live, ended, restart, show, visitor};
use crate::harness::obedient::{OBEDIENT, ask};
use crate::harness::{GitServer, Http, Setup, until};
use serde_json::{Value, json};
use std::time::Duration;

/// Takes this many MiB, each page of them, in each of so many processes at once, and says for each how it went.
fn take(owner: &mut Http, app: &str, mib: u32, processes: u32) -> String {
    let one = format!(
        "python3 -c \"import time; x = b'x' * ({mib} << 20); time.sleep(1); print('took')\""
    );
    let script = format!("for n in $(seq {processes}); do {one} 2>&1 | tail -n 1 & done; wait");
    ask(owner, app, "/shell", &script)
}

fn limits(owner: &mut Http, app: &str) -> Value {
    show(owner, app)["limits"].clone()
}

/// Starts so many processes at once; how many could be.
fn fork(owner: &mut Http, app: &str, processes: u32) -> usize {
    // A shell that cannot fork ends.
    let script = format!("(for n in $(seq {processes}); do sleep 2 & echo one; done) 2>/dev/null");
    ask(owner, app, "/shell", &script).matches("one").count()
}

#[test]
fn memory_processes_and_cpu_are_limited_or_it_is_said_that_they_are_not() {
    let git = GitServer::start();
    git.commit("obedient", &OBEDIENT);
    let server = Setup::new().as_user().start();
    let mut owner = server.owner();
    let app = |owner: &mut Http, name: &str, more: Value| {
        let mut body = json!({"name": name, "gitRepo": git.url("obedient"), "healthPath": "/"});
        body.as_object_mut()
            .expect("an object")
            .extend(more.as_object().expect("an object").clone());
        let app = create(owner, &body);
        deploy_live(owner, &app);
        app
    };
    let small =
        app(&mut owner, "small", json!({"memoryMb": 128, "cpuPercent": 50, "maxProcesses": 40}));
    let usual = app(&mut owner, "usual", json!({}));

    let held = limits(&mut owner, &small);
    assert_eq!((&held["memory"]["value"], &held["processes"]["value"]), (&json!(128), &json!(40)));
    match held["memory"]["by"].as_str() {
        Some("cgroup") => {
            assert_eq!(held["cpu"], json!({"value": 50, "by": "cgroup", "note": null}));
            until("more than all may take together ends it", Duration::from_secs(60), || {
                let _ = visitor(&mut owner, &small).try_request(
                    "POST",
                    "/shell",
                    Some(
                        b"python3 -c \"x = b'x' * (90 << 20); import time; time.sleep(5)\" & \
                    python3 -c \"x = b'x' * (90 << 20); import time; time.sleep(5)\" & wait",
                    ),
                );
                owner.get(&format!("/api/apps/{small}/log")).text().contains("signal 9")
            });
        }
        Some("process") => {
            let why = held["memory"]["note"].as_str().expect("a note");
            assert!(why.contains("each process") && why.contains("cgroup"), "{why}");
            assert_eq!((&held["cpu"]["value"], &held["cpu"]["by"]), (&Value::Null, &json!("none")));
            let why = held["cpu"]["note"].as_str().expect("a note");
            assert!(why.contains("50 % is not in force") && why.contains("cgroup"), "{why}");
            assert_eq!(take(&mut owner, &small, 200, 1).trim(), "MemoryError");
            assert_eq!(take(&mut owner, &small, 90, 2).matches("took").count(), 2, "as it is said");
        }
        other => panic!("{other:?}: {held}"),
    }
    assert_eq!(take(&mut owner, &usual, 200, 1).trim(), "took");

    // A runaway fork ends at its own limit; the app goes on, and no other app notices.
    let made = fork(&mut owner, &small, 200);
    assert!((10..=40).contains(&made), "{made}");
    assert_eq!(fork(&mut owner, &usual, 100), 100);
    assert_eq!(show(&mut owner, &small)["status"], "running");
    let held = limits(&mut owner, &usual);
    assert_eq!((&held["processes"]["value"], &held["cpu"]["note"]), (&json!(1024), &Value::Null));

    // A change says when it will be in force, and then it is.
    owner.patch(&format!("/api/apps/{small}"), &json!({"memoryMb": 256})).expect(200);
    let held = limits(&mut owner, &small);
    assert_eq!(held["memory"]["value"], 128);
    assert!(held["memory"]["note"].as_str().is_some_and(|n| n.contains("256 MiB from")), "{held}");
    assert_eq!(restart(&mut owner, &small)["status"], "live");
    assert_eq!(limits(&mut owner, &small)["memory"]["value"], 256);
}

/// Takes 200 MiB when it is told to, also by its environment, and ends as most programs do that get none.
const GREEDY: &str = "\
import http.server, os, sys, traceback
def take():
    try: return b'x' * (200 << 20)
    except MemoryError: traceback.print_exc(); os._exit(1)
if 'GREEDY' in os.environ: take()
class H(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == '/exit': os._exit(1)
        if self.path == '/take': take()
        self.send_response(200); self.end_headers()
http.server.HTTPServer(('127.0.0.1', int(os.environ['PORT'])), H).serve_forever()
";

#[test]
fn an_app_that_ends_over_its_memory_limit_is_said_to() {
    let git = GitServer::start();
    git.commit("greedy", &[("Procfile", "web: python3 main.py\n"), ("main.py", GREEDY)]);
    let server = Setup::new().as_user().start();
    let mut owner = server.owner();
    let body = json!({"name": "greedy", "gitRepo": git.url("greedy"), "memoryMb": 64});
    let app = create(&mut owner, &body);
    deploy_live(&mut owner, &app);
    let mut last_exit = |path: &str, restarts: u32| {
        let _cut = visitor(&mut owner, &app).try_request("GET", path, None);
        until("it runs again", Duration::from_secs(60), || {
            show(&mut owner, &app)["restarts"] == restarts
                && visitor(&mut owner, &app).try_request("GET", "/", None).is_ok()
        });
        show(&mut owner, &app)["lastExit"].as_str().expect("an end").to_owned()
    };
    assert_eq!(last_exit("/exit", 1), "exit code 1", "nothing is guessed");
    let how = last_exit("/take", 2);
    let log = owner.get(&format!("/api/apps/{app}/log")).text();
    assert!(how.contains("over its memory limit of 64 MiB"), "{how}: {log}");
    let env = json!({"env": [{"name": "GREEDY", "value": "1", "secret": false}]});
    owner.put(&format!("/api/apps/{app}/env"), &env).expect(200);
    let end = restart(&mut owner, &app);
    let error = end["error"].as_str().expect("an error");
    assert!(error.contains("over its memory limit of 64 MiB"), "{error}");
}

#[test]
fn a_build_that_takes_too_much_fails_with_a_sentence() {
    let git = GitServer::start();
    git.commit("obedient", &OBEDIENT);
    let server = Setup::new().as_user().start();
    let mut owner = server.owner();
    let app = create(&mut owner, &json!({"name": "one", "gitRepo": git.url("obedient")}));
    let mut build = |command: &str, sentence: &str| {
        owner.patch(&format!("/api/apps/{app}"), &json!({"buildCommand": command})).expect(200);
        let id = deploy(&mut owner, &app);
        let error = ended(&mut owner, &id)["error"].as_str().expect("an error").to_owned();
        assert!(error.contains(sentence), "{command}: {error}");
    };
    build("python3 -c 'x = bytearray(1 << 50)'", "MemoryError");
    build("truncate -s 9G large", "into one file");
    build(
        "(for n in $(seq 6000); do sleep 60 & done) 2>&1 | grep -m 1 fork && exit 9",
        "Cannot fork",
    );
}
