//! Deploys that never take an app down: good and bad ones in turn, under the eyes of clients of the router.

use crate::harness::apps::{create, deploy, ended, restart, roll_back, show};
use crate::harness::routed::{Client, ask, release, start};
use crate::harness::{GitServer, Http, RawConn, Setup, Ws};
use serde_json::json;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

const HOST: &str = "shop.localhost";
/// What a good release may take on a busy machine, and what the others get, in seconds.
const PATIENCE: [u32; 2] = [60, 1];
/// How many replaced releases may wait for those that are connected to them.
const DRAINING: usize = 3;
/// A release that ends closes its WebSockets; on a busy machine it may take its time.
const CLOSING: Duration = Duration::from_secs(20);

const ERRORS: &str = "import http.server, os
class H(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(500); self.end_headers(); self.wfile.write(b'bad')
http.server.HTTPServer(('127.0.0.1', int(os.environ['PORT'])), H).serve_forever()
";
const HANGS: &str = "import os, socket, time
s = socket.socket(); s.bind(('127.0.0.1', int(os.environ['PORT']))); s.listen(); time.sleep(600)
";
const FORKS: &str = "import os, time
while True:
    try:
        os.fork()
    except OSError:
        time.sleep(1)
";

/// What an app with 512 MiB of memory may keep in its `/tmp` is half of that. One that got more would stay.
const FILLS: &str =
    "cp /dev/zero /tmp/x; [ $(stat -c %s /tmp/x) -gt 268435456 ] && exec sleep 600; exit 9";

/// Ways to be bad: a name, the web process, a program of it, and what the deploy's error says.
const BAD: [(&str, &str, &str, &str); 10] = [
    ("its build fails", "true", "", "building failed"),
    ("it exits at once", "exit 3", "", "exit code 3"),
    ("it never listens", "sleep 600", "", "nothing listened"),
    ("it answers 500", "python3 bad.py", ERRORS, "it answered 500"),
    ("it hangs", "python3 bad.py", HANGS, "did not answer in time"),
    ("it prints 50 MB", "yes 0123456789 | head -c 50000000; sleep 600", "", "nothing listened"),
    ("it forks without end", "python3 bad.py", FORKS, "nothing listened"),
    ("it fills its disk allowance", FILLS, "", "the app ended with"),
    ("it ignores SIGTERM", "trap '' TERM; while :; do sleep 1; done", "", "nothing listened"),
    ("it listens elsewhere", "python3 -m http.server --bind 127.0.0.1 0", "", "instead"),
];

/// The app, its owner, and a WebSocket to the release that is live.
struct Story<'a> {
    git: &'a GitServer,
    owner: Http,
    app: String,
    router: SocketAddr,
    held: Option<Ws>,
    /// WebSockets to releases before that one, the oldest first.
    past: VecDeque<Ws>,
}

impl Story<'_> {
    fn hold(&self) -> Ws {
        Ws::at(self.router, "/ws").with("Host", HOST).open().expect("a WebSocket")
    }

    fn be_patient(&mut self, seconds: u32) {
        let path = format!("/api/apps/{}", self.app);
        self.owner.patch(&path, &json!({"healthTimeoutSeconds": seconds})).expect(200);
    }

    fn deploy(&mut self, patience: u32) -> serde_json::Value {
        self.be_patient(patience);
        let id = deploy(&mut self.owner, &self.app);
        ended(&mut self.owner, &id)
    }

    /// A release that is well takes the place of the one before, which ends its WebSockets itself.
    fn good(&mut self, version: &str, more: &[(&str, &str)]) -> String {
        let mut files = release(version);
        files.push(("build.sh", "true"));
        files.extend(more);
        self.git.commit("shop", &files);
        let end = self.deploy(PATIENCE[0]);
        assert_eq!(end["status"], "live", "{end:#}");
        self.now_is(version);
        end["id"].as_str().expect("an id").to_owned()
    }

    /// A download that ends four seconds after another release has started.
    fn download(&self) -> RawConn {
        let limit = Duration::from_secs(u64::from(2 * PATIENCE[0]));
        let mut connection = RawConn::open(self.router, None, limit).expect("a connection");
        connection.send(format!("GET /download HTTP/1.1\r\nHost: {HOST}\r\n\r\n"));
        assert!(connection.is_open(), "the download has begun");
        connection
    }

    /// From the moment that a deploy is live only its release answers.
    fn now_is(&mut self, version: &str) {
        assert_eq!(ask(self.router, HOST, &mut None).as_deref(), Ok(version));
        let fresh = self.hold();
        self.past.extend(self.held.replace(fresh));
        if self.past.len() > DRAINING {
            let mut before = self.past.pop_front().expect("one");
            let goodbye = before.wait_for_close(CLOSING);
            assert_eq!(goodbye, Some(1001), "its own release ends it, not the switch to {version}");
        }
    }

    /// A release that is not leaves everything as it is.
    fn bad(&mut self, (name, web, program, error): (&str, &str, &str, &str)) {
        let procfile = format!("web: {web}\n");
        let build = if name == "its build fails" { "echo no; exit 3" } else { "true" };
        let files = [("Procfile", procfile.as_str()), ("bad.py", program), ("build.sh", build)];
        self.git.commit("shop", &files);
        // One that ends by itself has the time to, also on a busy machine.
        let ends = error == "exit code 3" || error == "the app ended with";
        let end = self.deploy(PATIENCE[usize::from(!ends)]);
        assert_eq!(end["status"], "failed", "{name}: {end:#}");
        let text = end["error"].as_str().expect("an error");
        assert!(text.contains(error), "{name}: {text}");
        assert!(self.held.as_mut().expect("held").is_alive(), "{name}: a WebSocket was cut");
    }
}

#[test]
fn twenty_deploys_and_three_rollbacks_fail_no_request() {
    let git = GitServer::start();
    let server = start(Setup::routed().as_user());
    let router = server.setup().router("HTTP_PORT");
    let mut owner = server.owner();
    let body = json!({
        "name": "shop", "gitRepo": git.url("shop"), "healthPath": "/", "buildCommand": "sh build.sh",
        "maxProcesses": 64, "memoryMb": 512,
    });
    let app = create(&mut owner, &body);
    let mut story = Story { git: &git, owner, app, router, held: None, past: VecDeque::new() };
    // It ignores SIGTERM, so what is held to it lives for 30 s after its end was asked for.
    story.good("stubborn", &[("stubborn", "")]);
    let mut stubborn = story.held.take().expect("held");

    let clients = [true, false].map(|keeps| Client::start(router, HOST, keeps));
    let mut lived = Vec::new();
    for (number, bad) in BAD.into_iter().enumerate() {
        let version = format!("good {number}");
        // The app does not wait for it when it is asked to end.
        let download = (number % 4 == 1).then(|| story.download());
        let id = story.good(&version, &[]);
        if let Some(mut download) = download {
            assert_eq!(download.answer().expect(200).body.len(), 65536 + 8, "{version}");
        }
        lived.push((version, id));
        if number < 2 {
            assert!(stubborn.is_alive(), "a WebSocket was cut before its release had ended");
        }
        story.bad(bad);
    }
    story.be_patient(PATIENCE[0]);
    for (version, id) in [&lived[6], &lived[9], &lived[7]] {
        roll_back(&mut story.owner, &story.app, id);
        story.now_is(version);
    }
    for seen in clients.map(Client::finish) {
        assert_eq!(seen.failures, Vec::<String>::new(), "{:?}", seen.texts);
        assert!(seen.texts.keys().all(|t| t == "stubborn" || t.starts_with("good ")), "{seen:?}");
        assert!(lived.iter().all(|(version, _)| seen.texts.contains_key(version)), "{seen:?}");
        println!("{} requests, none failed", seen.texts.values().sum::<usize>());
    }
}

#[test]
fn restarts_and_changes_of_the_environment_fail_no_request() {
    let git = GitServer::start();
    let server = start(Setup::routed().as_user());
    let router = server.setup().router("HTTP_PORT");
    let mut owner = server.owner();
    let app = create(&mut owner, &json!({"name": "shop", "gitRepo": git.url("shop")}));
    let mut story = Story { git: &git, owner, app, router, held: None, past: VecDeque::new() };
    let env = |story: &mut Story<'_>, name: &str, value: &str| {
        let env = json!({"env": [{"name": name, "value": value, "secret": false}]});
        story.owner.put(&format!("/api/apps/{}/env", story.app), &env).expect(200);
    };
    let first = story.good("good one", &[]);
    let clients = [true, false].map(|keeps| Client::start(router, HOST, keeps));
    for round in 0..6 {
        let more = format!(", round {round}");
        env(&mut story, "MORE", &more);
        let end = restart(&mut story.owner, &story.app);
        assert_eq!(
            (&end["status"], &end["steps"][0]["step"]),
            (&json!("live"), &json!("starting"))
        );
        story.now_is(&format!("good one{more}"));
        if round % 3 == 1 {
            roll_back(&mut story.owner, &story.app, &first);
            story.now_is(&format!("good one{more}"));
        }
    }

    // One that fails its check changes nothing, and says so.
    env(&mut story, "BROKEN", "1");
    let end = restart(&mut story.owner, &story.app);
    assert_eq!(end["status"], "failed", "{end:#}");
    assert!(end["error"].as_str().is_some_and(|e| e.contains("exit code 4")), "{end:#}");
    let id = end["id"].as_str().expect("an id");
    let log = story.owner.get(&format!("/api/deploys/{id}/log")).expect(200).text();
    assert!(log.contains("what was live before goes on serving"), "{log}");
    assert!(story.held.as_mut().expect("held").is_alive(), "a WebSocket was cut");
    assert_eq!(ask(router, HOST, &mut None).as_deref(), Ok("good one, round 5"));
    assert_eq!(show(&mut story.owner, &story.app)["status"], "running");
    for seen in clients.map(Client::finish) {
        assert_eq!(seen.failures, Vec::<String>::new(), "{:?}", seen.texts);
        assert!(seen.texts.contains_key("good one, round 5"), "{seen:?}");
        println!("{} requests, none failed", seen.texts.values().sum::<usize>());
    }
}
