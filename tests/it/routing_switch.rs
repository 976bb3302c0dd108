//! The moment in which a route changes: what the router confirms, what crashes beside it, and who else may change it.

use crate::harness::apps::{create, deploy, deploy_live, ended, restart, show};
use crate::harness::routed::{STARTING, caddy, led_to, release, start};
use crate::harness::wait::let_pass;
use crate::harness::{GitServer, Http, Server, Setup, process, until};
use rustix::process::Signal;
use serde_json::json;
use std::time::{Duration, Instant};

/// An app that is not deployed yet, behind a router of its own.
struct Shop {
    git: GitServer,
    server: Server,
    owner: Http,
    app: String,
}

impl Shop {
    /// Its first release says "one", after it has done `first`.
    #[track_caller]
    fn open(first: &str) -> Self {
        let git = GitServer::start();
        commit(&git, "one", first);
        let server = start(Setup::routed().as_user());
        let mut owner = server.owner();
        let app = json!({"name": "shop", "gitRepo": git.url("shop"), "healthPath": "/"});
        let app = create(&mut owner, &app);
        Self { git, server, owner, app }
    }
}

/// A release of the shop that says this, after it has done `first`.
fn commit(git: &GitServer, version: &str, first: &str) {
    let main = format!("{first}{}", include_str!("fixtures/live/main.py"));
    let mut files = release(version);
    files[1].1 = &main;
    git.commit("shop", &files);
}

/// Kills the sandboxes with this in their arguments, and waits until they are gone.
#[track_caller]
fn end_sandboxes(word: &str) {
    until("they are gone", STARTING, || {
        let mut left = process::all();
        left.retain(|&pid| process::arguments(pid).contains(word));
        left.iter().for_each(|&pid| process::kill(pid));
        left.is_empty()
    });
}

/// Kills what runs of one release.
#[track_caller]
fn end_release(server: &Server, app: &str, release: &str) {
    let place = server.data().join("apps").join(app).join("releases").join(release);
    end_sandboxes(&format!("--bind {} ", place.display()));
}

#[test]
fn nothing_goes_live_that_the_router_does_not_confirm() {
    let Shop { git, server, mut owner, app } = Shop::open("");
    let first = deploy_live(&mut owner, &app);
    commit(&git, "two", "");
    let pid = caddy(&server);
    process::signal(pid, Signal::STOP);
    let id = deploy(&mut owner, &app);
    let end = ended(&mut owner, &id);
    process::signal(pid, Signal::CONT);
    assert_eq!(end["status"], "failed", "{end:#}");
    let error = end["error"].as_str().expect("an error");
    assert!(error.contains("did not confirm"), "{error}");
    assert_eq!(server.visitor("shop.localhost").get("/").expect(200).text(), "one");
    assert_eq!(show(&mut owner, &app)["liveDeployId"], first);
    deploy_live(&mut owner, &app);
    assert_eq!(server.visitor("shop.localhost").get("/").expect(200).text(), "two");
}

/// A name that its owner gives while the router is being asked does not stop the deploy.
#[test]
fn an_app_that_is_renamed_while_its_deploy_is_confirmed_goes_live() {
    let Shop { git: _git, server, mut owner, app } = Shop::open("");
    let pid = caddy(&server);
    process::signal(pid, Signal::STOP);
    let id = deploy(&mut owner, &app);
    until("the route is changed", STARTING, || led_to(&server, &app).starts_with("p."));
    owner.patch(&format!("/api/apps/{app}"), &json!({"name": "store"})).expect(200);
    process::signal(pid, Signal::CONT);
    let end = ended(&mut owner, &id);
    assert_eq!(end["status"], "live", "{end:#}");
    assert_eq!(server.visitor("store.localhost").get("/").expect(200).text(), "one");
}

/// Waits for its owner before it listens, but for the first time.
const LATE: &str = "\
import os, time
if os.path.exists('/data/late'):
    open('/data/waits', 'w').close()
    while not os.path.exists('/data/go'): time.sleep(0.02)
open('/data/late', 'w').close()
";

#[test]
fn no_route_leads_to_a_port_that_the_app_does_not_have() {
    let Shop { git: _git, mut server, mut owner, app } = Shop::open(LATE);
    let live = deploy_live(&mut owner, &app);
    let mut visitor = server.visitor("shop.localhost");
    visitor.get("/").expect(200);

    // Started again, it is led to when it listens, not before.
    let place = server.data().join("apps").join(&app);
    let act = |owner: &mut Http, what: &str| {
        owner.post(&format!("/api/apps/{app}/{what}"), &json!({})).expect(202);
    };
    act(&mut owner, "stop");
    // Wanted again before anybody has looked, it would just go on.
    until("it stops", STARTING, || show(&mut owner, &app)["status"] != "running");
    act(&mut owner, "start");
    until("it runs again", STARTING, || place.join("data/waits").exists());
    assert_eq!(show(&mut owner, &app)["status"], "starting");
    visitor.get("/").expect(503);
    std::fs::write(place.join("data/go"), "").expect("a file");
    until("it is led to", STARTING, || visitor.get("/").status == 200);

    // Nor to a port that it has lost: until it listens again, it is said to be down.
    for file in ["data/go", "data/waits"] {
        std::fs::remove_file(place.join(file)).expect("a file");
    }
    end_sandboxes(&format!("--bind {}/", place.display()));
    until("it is started again", STARTING, || place.join("data/waits").exists());
    visitor.get("/").expect(503);
    std::fs::write(place.join("data/go"), "").expect("a file");
    until("it is led to", STARTING, || visitor.get("/").status == 200);

    // A restart that cannot be leaves the process as it is, with its route.
    let recipe = place.join("releases").join(format!("{live}.json"));
    let away = place.join("recipe");
    std::fs::rename(&recipe, &away).expect("a recipe");
    let port = led_to(&server, &app);
    let end = restart(&mut owner, &app);
    assert!(end["error"].as_str().is_some_and(|e| e.contains("files are gone")), "{end:#}");
    assert_eq!((led_to(&server, &app), visitor.get("/").status), (port, 200));

    // A release that does not start leaves no route to the process before.
    act(&mut owner, "stop");
    // Wanted again before anybody has looked, it would just go on.
    until("it stops", STARTING, || show(&mut owner, &app)["status"] != "running");
    act(&mut owner, "start");
    until("it is down", STARTING, || show(&mut owner, &app)["status"] == "crashed");
    visitor.get("/").expect(503);
    let why = show(&mut owner, &app)["statusDetail"].clone();
    assert!(why.as_str().is_some_and(|w| w.contains("could not be started: ")), "{why}");
    std::fs::rename(&away, &recipe).expect("a recipe");
    act(&mut owner, "start");
    until("it is up", STARTING, || visitor.get("/").status == 200);

    // Nor does a process that ended while no server ran.
    let port = led_to(&server, &app);
    std::fs::rename(&recipe, &away).expect("a recipe");
    server.kill9();
    end_sandboxes(&format!("--bind {}/", place.display()));
    assert_eq!(led_to(&server, &app), port);
    let server = start(server.setup().clone());
    until("it is down", STARTING, || led_to(&server, &app) == "d");
    visitor.get("/").expect(503);
}

/// The release before crashes while the router is asked, so its app is said to be down; the new one is not.
#[test]
fn a_crash_of_the_release_before_does_not_stop_a_switch() {
    let Shop { git, server, mut owner, app } = Shop::open("");
    let first = deploy_live(&mut owner, &app);
    let before = led_to(&server, &app);
    commit(&git, "two", "");
    let pid = caddy(&server);
    process::signal(pid, Signal::STOP);
    let id = deploy(&mut owner, &app);
    until("the route is changed", STARTING, || led_to(&server, &app) != before);
    end_release(&server, &app, &first);
    let log = format!("/api/apps/{app}/log");
    until("the crash is noticed", STARTING, || owner.get(&log).text().contains("Ended with"));
    process::signal(pid, Signal::CONT);
    let end = ended(&mut owner, &id);
    assert_eq!(end["status"], "live", "{end:#}");
    assert_eq!(server.visitor("shop.localhost").get("/").expect(200).text(), "two");
}

/// The same a moment later: the router has confirmed, and the switch is being noted.
#[test]
fn a_crash_between_a_switch_and_its_note_leaves_the_new_route() {
    let Shop { git, server, mut owner, app } = Shop::open("");
    let first = deploy_live(&mut owner, &app);
    commit(&git, "two", HELD);
    let id = deploy(&mut owner, &app);
    let path = format!("/api/deploys/{id}");
    until("it is checked", STARTING, || owner.get(&path).json()["status"] == "checking");

    // As long as this is open, nobody else writes into the database.
    let database = rusqlite::Connection::open(server.data().join("better-paas.db"));
    let database = database.expect("the database");
    database.busy_timeout(STARTING).expect("a limit");
    database.execute_batch("BEGIN IMMEDIATE").expect("the right to write");
    std::fs::write(server.data().join("apps").join(&app).join("data/go"), "").expect("a file");
    let mut visitor = server.visitor("shop.localhost");
    until("the route is changed", STARTING, || visitor.get("/").text() == "two");
    end_release(&server, &app, &first);
    // The crash leads the app's requests nowhere. Should the router not have confirmed yet, that is undone at once.
    let killed = Instant::now();
    while led_to(&server, &app) != "d" && killed.elapsed() < Duration::from_secs(2) {
        let_pass(Duration::from_millis(5));
    }
    database.execute_batch("ROLLBACK").expect("done");

    assert_eq!(ended(&mut owner, &id)["status"], "live");
    let log = format!("/api/apps/{app}/log");
    until("the crash is noticed", STARTING, || owner.get(&log).text().contains("Ended with"));
    until("the new release is led to", STARTING, || {
        visitor.try_request("GET", "/", None).is_ok_and(|answer| answer.text() == "two")
    });
    assert_eq!(owner.get(&log).text().matches("Starting release").count(), 2, "nothing else ran");
}

/// Waits before it listens.
const HELD: &str = "\
import os, time
while not os.path.exists('/data/go'): time.sleep(0.02)
";

/// Serves only the hosts that it is told to, and no visitor who seems to have come in another way.
const PICKY: &str = "\
import http.server, os
class H(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        host = self.headers['Host']
        mine = host.split(':')[0] in os.environ['ALLOWED_HOSTS'].split(',')
        told = self.headers['X-Forwarded-Host'] == host and self.headers['X-Forwarded-Proto'] == 'http'
        self.send_response(200 if mine and told else 400)
        self.send_header('Content-Length', '0'); self.end_headers()
http.server.ThreadingHTTPServer(('127.0.0.1', int(os.environ['PORT'])), H).serve_forever()
";

#[test]
fn an_app_with_a_list_of_hosts_goes_live_and_one_whose_own_is_not_in_it_is_told() {
    let git = GitServer::start();
    git.commit("shop", &[("Procfile", "web: python3 main.py\n"), ("main.py", PICKY)]);
    let server = start(Setup::routed().as_user());
    let mut owner = server.owner();
    let body = json!({"name": "shop", "gitRepo": git.url("shop"), "healthPath": "/"});
    let app = create(&mut owner, &body);
    let path = format!("/api/apps/{app}");
    let env =
        json!([{"name": "ALLOWED_HOSTS", "value": "shop.localhost,shop.test", "secret": false}]);
    owner.put(&format!("{path}/env"), &json!({"env": env})).expect(200);
    deploy_live(&mut owner, &app);
    server.visitor("shop.localhost").get("/").expect(200);
    owner.patch(&path, &json!({"domains": ["shop.test", "www.shop.test"]})).expect(200);
    deploy_live(&mut owner, &app);
    owner
        .patch(&path, &json!({"domains": ["www.shop.test"], "healthTimeoutSeconds": 1}))
        .expect(200);
    let id = deploy(&mut owner, &app);
    let end = ended(&mut owner, &id);
    let error = end["error"].as_str().expect("an error");
    assert!(error.contains("it answered 400 to the Host www.shop.test"), "{error}");
    assert!(error.contains("ALLOWED_HOSTS"), "{error}");
    // Without a health path any answer will do, and the log names what is odd about this one.
    owner.patch(&path, &json!({"healthPath": ""})).expect(200);
    let id = deploy_live(&mut owner, &app);
    let log = owner.get(&format!("/api/deploys/{id}/log")).expect(200).text();
    assert!(
        log.contains("400 to the Host www.shop.test") && log.contains("ALLOWED_HOSTS"),
        "{log}"
    );
}
