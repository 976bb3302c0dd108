//! A system clock that jumps by years, back and ahead, under the running server.

use crate::harness::apps::{create, deploy, deploy_live, ended, show, visitor};
use crate::harness::{Answer, GitServer, Http, Server, Setup, until};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

const LIMIT: Duration = Duration::from_secs(60);
/// A build that waits until its cache holds a file, which a test can put there.
const HELD_BUILD: &str = "touch /cache/begun; until [ -e /cache/go ]; do sleep 0.02; done";

const DAY: f64 = 86_400.0;
/// Answers with what it drew when it was started.
const MAIN: &str = "\
import http.server, os
born = os.urandom(16).hex().encode()
class H(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(born)
http.server.HTTPServer(('127.0.0.1', int(os.environ['PORT'])), H).serve_forever()
";

/// A server whose system clock is the machine's, and as much more or less as a file says. What the machine measures
/// time with otherwise, since its start, goes on as it does.
struct Site {
    server: Server,
    owner: Http,
}

impl Site {
    fn new() -> Self {
        let setup = Setup::new().as_user();
        let file = setup.home().join("clock");
        std::fs::write(&file, "+0d").expect("the clock's file");
        let setup = setup
            // For the server alone: what becomes another user on the way would be in its way.
            .shell(&format!("export LD_PRELOAD={}", library().display()))
            .env("FAKETIME_TIMESTAMP_FILE", file.to_str().expect("UTF-8"))
            .env("FAKETIME_NO_CACHE", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        let server = setup.start();
        let owner = server.owner();
        Self { server, owner }
    }

    /// Sets the clock this many days off.
    fn set(&self, days: i32) {
        let place = self.server.setup().home().join("clock");
        // In one step: half a number would be another time.
        let new = place.with_extension("new");
        std::fs::write(&new, format!("{days:+}d")).expect("a file");
        std::fs::rename(new, place).expect("the clock's file");
    }

    /// The same under the running server, which has taken it when this ends.
    fn jump(&self, days: i32) {
        self.set(days);
        let mut guest = Http::new(self.server.address());
        until("the server's clock has jumped", LIMIT, || {
            let date = guest.get("/").header("date").map(httpdate::parse_http_date);
            let date = date.expect("a header").expect("a date");
            let off = match date.duration_since(SystemTime::now()) {
                Ok(ahead) => ahead.as_secs_f64(),
                Err(behind) => -behind.duration().as_secs_f64(),
            };
            (off / DAY - f64::from(days)).abs() < 1.0
        });
    }

    /// Kills the server and starts it anew with the clock this many days off.
    fn start_again(&mut self, days: i32) {
        self.server.kill9();
        self.tidy();
        self.set(days);
        self.server = self.server.setup().clone().start();
        self.owner = self.server.owner();
    }

    /// What the library shares between processes stays behind when the server becomes another program.
    fn tidy(&self) {
        for kind in ["faketime_shm", "sem.faketime_sem"] {
            let place = format!("/dev/shm/{kind}_{}", self.server.pid());
            std::fs::remove_file(place).expect("the library's file");
        }
    }

    fn deploys(&mut self, app: &str) -> Vec<Value> {
        let answer = self.owner.get(&format!("/api/apps/{app}/deploys")).expect(200).json();
        answer["deploys"].as_array().expect("a list").clone()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.tidy();
    }
}

/// The library that gives a program another time, from Debian's package `faketime`.
fn library() -> PathBuf {
    let machines = std::fs::read_dir("/usr/lib").into_iter().flatten().flatten();
    machines
        .map(|entry| entry.path().join("faketime/libfaketimeMT.so.1"))
        .find(|path| path.exists())
        .expect("libfaketime is installed: scripts/test does it")
}

#[test]
fn a_clock_that_jumps_by_years_confuses_no_deploy_no_app_and_no_lockout() {
    let mut site = Site::new();
    let git = GitServer::start();
    git.commit("plain", &[("Procfile", "web: python3 -u main.py\n"), ("main.py", MAIN)]);
    let app = create(&mut site.owner, &json!({"name": "plain", "gitRepo": git.url("plain")}));
    let mut newest = vec![deploy_live(&mut site.owner, &app)];

    // Between deploys, and in the middle of one, either way.
    for (between, within) in [(-400, -700), (-700, 500)] {
        site.jump(between);
        newest.insert(0, deploy_live(&mut site.owner, &app));
        let held = json!({"buildCommand": HELD_BUILD});
        site.owner.patch(&format!("/api/apps/{app}"), &held).expect(200);
        let id = deploy(&mut site.owner, &app);
        let cache = site.server.data().join("apps").join(&app).join("cache");
        until("it builds", LIMIT, || cache.join("begun").exists());
        site.jump(within);
        std::fs::write(cache.join("go"), "").expect("a file");
        let done = ended(&mut site.owner, &id);
        assert_eq!(done["status"], "live", "{done}");
        newest.insert(0, id);
        for name in ["begun", "go"] {
            std::fs::remove_file(cache.join(name)).expect("it was there");
        }
        site.owner.patch(&format!("/api/apps/{app}"), &json!({"buildCommand": ""})).expect(200);
    }
    let listed = site.deploys(&app);
    let ids: Vec<_> = listed.iter().map(|d| d["id"].as_str().expect("an id").to_owned()).collect();
    assert_eq!(ids, newest, "newest first, whatever the clock said");
    for deploy in &listed {
        let time = |name: &str| deploy[name].as_i64().expect("a time");
        assert!(time("createdAt") <= time("startedAt"), "{deploy}");
        assert!(time("startedAt") <= time("finishedAt"), "{deploy}");
    }
    assert_eq!(show(&mut site.owner, &app)["liveDeployId"], newest[0].as_str());

    // A lockout lasts its seconds: a clock neither ends it nor makes years of them.
    let guest = Http::new(site.server.address()).coming_from([127, 0, 0, 9]);
    let mut guest = guest.bearer("bpaas_this-is-not-the-token");
    for days in [-900, 900] {
        let begun = Instant::now();
        let mut last = guest.get("/api/session");
        while last.status != 429 {
            assert!(begun.elapsed() < LIMIT);
            last = guest.get("/api/session");
        }
        let locked = Instant::now();
        let lasts = seconds(&last);
        site.jump(days);
        let then = guest.get("/api/session");
        if then.status == 429 {
            assert!(seconds(&then).as_secs() <= 900, "years of it");
        } else {
            assert!(locked.elapsed() + Duration::from_secs(1) >= lasts, "ended by the clock");
        }
    }

    // What runs is known again, by what does not jump.
    let born = visitor(&mut site.owner, &app).get("/").expect(200).text();
    site.start_again(-300);
    assert_eq!(show(&mut site.owner, &app)["status"], "running");
    assert_eq!(visitor(&mut site.owner, &app).get("/").expect(200).text(), born);
    deploy_live(&mut site.owner, &app);
    assert_ne!(visitor(&mut site.owner, &app).get("/").expect(200).text(), born);
}

/// What a lockout says that it still lasts.
fn seconds(answer: &Answer) -> Duration {
    let text = answer.header("retry-after").expect("a lockout says how long");
    Duration::from_secs(text.parse().expect("seconds"))
}
