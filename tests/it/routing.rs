//! Apps behind the router: a real Caddy that the server starts, finds again, and leaves running.

use crate::deploy::{create, deploy, deploy_live, ended, show};
use crate::harness::{GitServer, Http, Server, Setup, Ws, process, until, until_some};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::time::Duration;

/// What the router may take to start on a busy machine.
pub const STARTING: Duration = Duration::from_secs(30);

/// An app that says its version and holds WebSockets.
pub fn release(version: &str) -> Vec<(&str, &str)> {
    vec![
        ("Procfile", "web: python3 main.py\n"),
        ("main.py", include_str!("fixtures/live/main.py")),
        ("version", version),
    ]
}

/// What the server says of its router.
pub fn router(owner: &mut Http) -> Value {
    owner.get("/api/system").expect(200).json()["router"].clone()
}

/// Starts a server and waits until its router serves.
#[track_caller]
pub fn start(setup: Setup) -> Server {
    let server = setup.start();
    until_running(&server);
    server
}

#[track_caller]
pub fn until_running(server: &Server) {
    let mut owner = server.owner();
    until("the router runs", STARTING, || router(&mut owner)["state"] == "running");
}

/// The pid of the server's Caddy.
#[track_caller]
pub fn caddy(server: &Server) -> u32 {
    let file = server.data().join("router/caddy.pid");
    let text = std::fs::read_to_string(file).expect("a pid file");
    let value: Value = serde_json::from_str(&text).expect("JSON");
    value["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok()).expect("a pid")
}

fn a_route_outlives_caddy_and_the_server(setup: Setup) {
    let git = GitServer::start();
    git.commit("shop", &release("one"));
    let server = start(setup);
    let mut owner = server.owner();
    let body = json!({"name": "shop", "gitRepo": git.url("shop"), "healthPath": "/"});
    let app = create(&mut owner, &body);
    let mut visitor = server.visitor("shop.localhost");
    visitor.get("/").expect(503);
    server.visitor("other.localhost").get("/").expect(404);
    deploy_live(&mut owner, &app);
    let port = server.setup().router("HTTP_PORT").port();
    assert_eq!(show(&mut owner, &app)["url"], format!("http://shop.localhost:{port}"));
    assert_eq!(visitor.get("/").expect(200).text(), "one");
    for host in ["SHOP.LocalHost", "shop.localhost.", &format!("shop.localhost:{port}")] {
        assert_eq!(server.visitor(host).get("/").expect(200).text(), "one", "{host}");
    }
    for host in ["*.localhost", "*", "?hop.localhost", "localhost", "127.0.0.1", "shop.localhost.x"]
    {
        let answer = server.visitor(host).get("/");
        assert!(matches!(answer.status, 400 | 404), "{host}: {answer:?}");
    }
    let spoofed = visitor.with("X-Forwarded-For", "192.0.2.66").get("/headers").json();
    assert_eq!(spoofed["X-Forwarded-For"], "127.0.0.1", "{spoofed}");
    assert_eq!(spoofed["X-Forwarded-Proto"], "http", "{spoofed}");

    caddy_comes_back(&server);
    server_dies_and_routes_stay(server, &app);
}

/// Whoever kills Caddy sees it again within 2 s, with every route.
fn caddy_comes_back(server: &Server) {
    let killed = caddy(server);
    process::kill(killed);
    until("another Caddy runs", STARTING, || {
        caddy(server) != killed && router(&mut server.owner())["state"] == "running"
    });
    let mut visitor = server.visitor("shop.localhost");
    assert_eq!(visitor.get("/").expect(200).text(), "one");
}

/// Whoever kills the server sees no route end, and the next server finds Caddy as it was.
fn server_dies_and_routes_stay(mut server: Server, app: &str) {
    let before = caddy(&server);
    let address = server.setup().router("HTTP_PORT");
    let mut held = Ws::at(address, "/ws").with("Host", "shop.localhost").open().expect("held");
    server.kill9();
    let mut visitor = server.visitor("shop.localhost");
    assert_eq!(visitor.get("/").expect(200).text(), "one");
    let server = start(server.setup().clone());
    assert_eq!(caddy(&server), before, "the router was started anew");
    assert!(held.is_alive(), "a WebSocket was cut");
    assert_eq!(visitor.get("/").expect(200).text(), "one");

    let mut owner = server.owner();
    owner.post(&format!("/api/apps/{app}/stop"), &json!({})).expect(202);
    until("the app is down", STARTING, || visitor.get("/").status == 503);
    owner.post(&format!("/api/apps/{app}/start"), &json!({})).expect(202);
    until("the app is up", STARTING, || visitor.get("/").status == 200);
    owner.patch(&format!("/api/apps/{app}"), &json!({"name": "store"})).expect(200);
    visitor.get("/").expect(404);
    let mut renamed = server.visitor("store.localhost");
    assert_eq!(renamed.get("/").expect(200).text(), "one");
    owner.delete(&format!("/api/apps/{app}")).expect(204);
    renamed.get("/").expect(404);
}

#[test]
fn a_route_outlives_caddy_and_the_server_under_an_ordinary_user() {
    a_route_outlives_caddy_and_the_server(Setup::routed().as_user());
}

#[test]
fn a_route_outlives_caddy_and_the_server_under_root() {
    if rustix::process::getuid().is_root() {
        a_route_outlives_caddy_and_the_server(Setup::routed());
    }
}

#[test]
fn without_a_router_everything_else_works() {
    let git = GitServer::start();
    git.commit("shop", &release("one"));
    let server = Server::start();
    let mut owner = server.owner();
    assert_eq!(router(&mut owner)["state"], "off");
    let app = create(&mut owner, &json!({"name": "shop", "gitRepo": git.url("shop")}));
    deploy_live(&mut owner, &app);
    let url =
        until_some("a url", STARTING, || show(&mut owner, &app)["url"].as_str().map(str::to_owned));
    assert!(url.starts_with("http://127.0.0.1:"), "{url}");
    git.commit("shop", &SITE);
    let id = deploy(&mut owner, &app);
    let refused = ended(&mut owner, &id)["error"].as_str().expect("an error").to_owned();
    assert!(refused.contains("ROUTER is off") && refused.contains("start command"), "{refused}");
    assert_eq!(show(&mut owner, &app)["status"], "running", "what was there goes on");
}

/// A site, with what an attacker would put beside it.
const SITE: [(&str, &str); 5] = [
    ("index.html", "<h1>first</h1>"),
    ("about/index.html", "<h1>about</h1>"),
    ("style.css", "b {}"),
    (".env", "SECRET=1"),
    (".well-known/security.txt", "Contact: x"),
];

fn static_sites_have_no_process_and_a_rollback_brings_one_back(setup: Setup) {
    let git = GitServer::start();
    git.commit("site", &release("process"));
    let server = start(setup);
    let mut owner = server.owner();
    let app = create(&mut owner, &json!({"name": "site", "gitRepo": git.url("site")}));
    let as_process = deploy_live(&mut owner, &app);
    let mut visitor = server.visitor("site.localhost");
    assert_eq!(visitor.get("/").expect(200).text(), "process");

    let secret = server.data().join("admin_token.txt");
    let links = [
        ("token.txt", secret.to_str().expect("UTF-8")),
        ("passwd", "../../../../../../../../../../../../etc/passwd"),
        ("up", ".."),
    ];
    git.commit_with_links("site", &SITE, &links);
    let as_files = deploy_live(&mut owner, &app);
    assert_eq!(visitor.get("/").expect(200).text(), "<h1>first</h1>");
    let css = visitor.get("/style.css").expect(200);
    assert_eq!(css.header("content-type"), Some("text/css; charset=utf-8"));
    assert_eq!(visitor.get("/about/").expect(200).text(), "<h1>about</h1>");
    visitor.get("/.well-known/security.txt").expect(200);
    for path in ["/.env", "/token.txt", "/passwd", "/up/", "/up/index.html", "/nothing"] {
        visitor.get(path).expect(404);
    }
    for path in ["/..%2f..%2fadmin_token.txt", "/%2e%2e/%2e%2e/admin_token.txt", "/about/../../x"] {
        let answer = visitor.get(path);
        assert!(answer.status >= 400, "{path}: {answer:?}");
        assert!(!answer.text().contains(&server.token()), "{path}");
    }
    let shown = show(&mut owner, &app);
    assert_eq!(shown["status"], "running");
    let log = owner.get(&format!("/api/deploys/{as_files}/log")).text();
    assert!(log.contains("static site") && log.contains("token.txt"), "{log}");
    until("the process of before has ended", STARTING, || {
        !process::all().into_iter().any(|pid| {
            process::arguments(pid).starts_with("bwrap")
                && process::arguments(pid).contains(&format!("apps/{app}/"))
        })
    });

    owner.post(&format!("/api/apps/{app}/stop"), &json!({})).expect(202);
    until("the site is down", STARTING, || visitor.get("/").status == 503);
    owner.post(&format!("/api/apps/{app}/start"), &json!({})).expect(202);
    until("the site is up", STARTING, || visitor.get("/").status == 200);

    git.commit("site", &[("404.html", "<h1>ours</h1>"), ("index.html", "<h1>second</h1>")]);
    deploy_live(&mut owner, &app);
    assert_eq!(visitor.get("/nothing").expect(404).text(), "<h1>ours</h1>");
    roll_back(&mut owner, &app, &as_files);
    assert_eq!(visitor.get("/").expect(200).text(), "<h1>first</h1>");
    let rolled = roll_back(&mut owner, &app, &as_process);
    assert_eq!(visitor.get("/").expect(200).text(), "process");
    let server = server.restart();
    until_running(&server);
    let mut visitor = server.visitor("site.localhost");
    assert_eq!(visitor.get("/").expect(200).text(), "process");
    let mut owner = server.owner();
    owner.post(&format!("/api/apps/{app}/restart"), &json!({})).expect(202);
    until("the release runs again", STARTING, || visitor.get("/").status == 200);
    assert_eq!(show(&mut owner, &app)["liveDeployId"], rolled);
    let again = roll_back(&mut owner, &app, &rolled);
    assert_ne!(again, rolled);
    assert_eq!(visitor.get("/").expect(200).text(), "process");
}

/// Goes back to a deploy and waits until that is done.
#[track_caller]
pub fn roll_back(owner: &mut Http, app: &str, to: &str) -> String {
    let body = json!({"deployId": to});
    let answer = owner.post(&format!("/api/apps/{app}/rollback"), &body).expect(202).json();
    assert_eq!(answer["trigger"], "rollback");
    let id = answer["id"].as_str().expect("an id").to_owned();
    let end = ended(owner, &id);
    assert_eq!(end["status"], "live", "{end:#}");
    id
}

#[test]
fn static_sites_have_no_process_and_a_rollback_brings_one_back_under_an_ordinary_user() {
    static_sites_have_no_process_and_a_rollback_brings_one_back(Setup::routed().as_user());
}

#[test]
fn static_sites_have_no_process_and_a_rollback_brings_one_back_under_root() {
    if rustix::process::getuid().is_root() {
        static_sites_have_no_process_and_a_rollback_brings_one_back(Setup::routed());
    }
}

#[test]
fn a_rollback_goes_to_a_release_that_was_live_and_is_kept() {
    let git = GitServer::start();
    git.commit("shop", &release("0"));
    let broken = [("Procfile", "web: exit 3\n")];
    let server = Server::start();
    let mut owner = server.owner();
    let app = create(&mut owner, &json!({"name": "shop", "gitRepo": git.url("shop")}));
    let other = create(&mut owner, &json!({"name": "other", "gitRepo": git.url("shop")}));
    let path = format!("/api/apps/{app}/rollback");
    let first = deploy_live(&mut owner, &app);
    git.commit("shop", &broken);
    let failed = deploy(&mut owner, &app);
    assert_eq!(ended(&mut owner, &failed)["status"], "failed");
    for (path, to) in [
        (path.clone(), failed.as_str()),
        (path.clone(), "aaaaaaaaaa"),
        (format!("/api/apps/{other}/rollback"), first.as_str()),
    ] {
        let refusal = owner.post(&path, &json!({"deployId": to})).expect(409);
        assert_eq!(refusal.code(), "no_release");
    }
    git.commit("shop", &release("1"));
    deploy_live(&mut owner, &app);
    // Used by what is live, a release is kept however many come after it.
    let rolled = roll_back(&mut owner, &app, &first);
    let commit = |owner: &mut Http, id: &str| {
        owner.get(&format!("/api/deploys/{id}")).json()["commit"].clone()
    };
    assert_eq!(commit(&mut owner, &rolled), commit(&mut owner, &first));
    git.commit("shop", &broken);
    for _ in 0..7 {
        let id = deploy(&mut owner, &app);
        assert_eq!(ended(&mut owner, &id)["status"], "failed");
    }
    owner.post(&format!("/api/apps/{app}/restart"), &json!({})).expect(202);
    until("it runs again", STARTING, || show(&mut owner, &app)["status"] == "running");
}

#[test]
fn nothing_goes_live_that_the_router_does_not_confirm() {
    let git = GitServer::start();
    git.commit("shop", &release("one"));
    let server = start(Setup::routed().as_user());
    let mut owner = server.owner();
    let app = create(&mut owner, &json!({"name": "shop", "gitRepo": git.url("shop")}));
    let first = deploy_live(&mut owner, &app);
    git.commit("shop", &release("two"));
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
    let git = GitServer::start();
    git.commit("shop", &release("one"));
    let server = start(Setup::routed().as_user());
    let mut owner = server.owner();
    let app = json!({"name": "shop", "gitRepo": git.url("shop"), "healthPath": "/"});
    let app = create(&mut owner, &app);
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

/// What the router finds first for an app.
fn led_to(server: &Server, app: &str) -> String {
    let dir = server.data().join("router/apps").join(app);
    let names = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let first = names.map(|e| e.file_name().to_string_lossy().into_owned()).min();
    first.and_then(|name| Some(name.split_once('.')?.1.to_owned())).unwrap_or_default()
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
    let git = GitServer::start();
    let main = format!("{LATE}{}", include_str!("fixtures/live/main.py"));
    let mut files = release("one");
    files[1].1 = &main;
    git.commit("shop", &files);
    let mut server = start(Setup::routed().as_user());
    let mut owner = server.owner();
    let app = json!({"name": "shop", "gitRepo": git.url("shop"), "healthPath": "/"});
    let app = create(&mut owner, &app);
    let live = deploy_live(&mut owner, &app);
    let mut visitor = server.visitor("shop.localhost");
    visitor.get("/").expect(200);

    // Started again, it is led to when it listens, not before.
    let (place, restart) =
        (server.data().join("apps").join(&app), format!("/api/apps/{app}/restart"));
    owner.post(&restart, &json!({})).expect(202);
    until("it runs again", STARTING, || place.join("data/waits").exists());
    visitor.get("/").expect(503);
    std::fs::write(place.join("data/go"), "").expect("a file");
    until("it is led to", STARTING, || visitor.get("/").status == 200);

    // A release that does not start leaves no route to the process before.
    let recipe = place.join("releases").join(format!("{live}.json"));
    let away = place.join("recipe");
    std::fs::rename(&recipe, &away).expect("a recipe");
    owner.post(&restart, &json!({})).expect(202);
    until("it is down", STARTING, || visitor.get("/").status == 503);
    std::fs::rename(&away, &recipe).expect("a recipe");
    owner.post(&restart, &json!({})).expect(202);
    until("it is up", STARTING, || visitor.get("/").status == 200);

    // Nor does a process that ended while no server ran.
    let port = led_to(&server, &app);
    std::fs::rename(&recipe, &away).expect("a recipe");
    server.kill9();
    let place = format!("--bind {}/", place.display());
    let is_app = |&pid: &u32| process::arguments(pid).contains(&place);
    until("the app is gone", STARTING, || {
        let left: Vec<u32> = process::all().into_iter().filter(is_app).collect();
        left.iter().for_each(|&pid| process::kill(pid));
        left.is_empty()
    });
    assert_eq!(led_to(&server, &app), port);
    let server = start(server.setup().clone());
    until("it is down", STARTING, || led_to(&server, &app) == "d");
    visitor.get("/").expect(503);
}
