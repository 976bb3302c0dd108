//! Apps behind the router: a real Caddy that the server starts, finds again, and leaves running.

use crate::deploy::{create, deploy_live, show};
use crate::harness::{GitServer, Http, Server, Setup, Ws, process, until, until_some};
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
    assert_eq!(router(&mut owner), json!({"state": "off"}));
    let app = create(&mut owner, &json!({"name": "shop", "gitRepo": git.url("shop")}));
    deploy_live(&mut owner, &app);
    let url =
        until_some("a url", STARTING, || show(&mut owner, &app)["url"].as_str().map(str::to_owned));
    assert!(url.starts_with("http://127.0.0.1:"), "{url}");
}
