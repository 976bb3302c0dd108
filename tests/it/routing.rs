//! Apps behind the router: a real Caddy that the server starts, finds again, and leaves running.

use crate::harness::apps::{create, deploy, deploy_live, ended, restart, roll_back, show, visitor};
use crate::harness::routed::{STARTING, caddy, led_to, release, router, start, until_running};
use crate::harness::site::sandboxes;
use crate::harness::{GitServer, Http, Server, Setup, Ws, process, until, until_some};
use rustix::process::Signal;
use serde_json::json;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

fn a_route_outlives_caddy_and_the_server(setup: Setup) {
    let git = GitServer::start();
    git.commit("shop", &release("one"));
    git.commit("site", &SITE);
    let begun = Instant::now();
    let server = start(setup);
    let first_start = begun.elapsed();
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
    let spoofed = visitor
        .with("X-Forwarded-For", "192.0.2.66")
        .with("X-Real-IP", "192.0.2.66")
        .with("Forwarded", "for=192.0.2.66")
        .get("/headers")
        .json();
    assert!(!spoofed.to_string().contains("192.0.2.66"), "{spoofed}");
    assert_eq!(spoofed["X-Real-Ip"], "127.0.0.1", "{spoofed}");
    assert_eq!(spoofed["X-Forwarded-For"], "127.0.0.1", "{spoofed}");
    assert_eq!(spoofed["X-Forwarded-Proto"], "http", "{spoofed}");

    for name in ["docs", "blog"] {
        let domains = [format!("{name}.test")];
        let body = json!({"name": name, "gitRepo": git.url("site"), "domains": domains});
        let app = create(&mut owner, &body);
        deploy_live(&mut owner, &app);
    }
    caddy_comes_back(&server, first_start);
    server_dies_and_routes_stay(server, &app);
}

/// Whoever kills Caddy sees it again as soon as it can start, with every route. On a machine that others use too,
/// not twice in a row too late.
fn caddy_comes_back(server: &Server, first_start: Duration) {
    let hosts = ["docs.localhost", "docs.test", "blog.localhost", "blog.test"];
    let back = || {
        let killed = caddy(server);
        process::kill(killed);
        let begun = Instant::now();
        until("another Caddy runs", STARTING, || {
            let shop = server.visitor("shop.localhost").try_request("GET", "/", None);
            caddy(server) != killed && shop.is_ok_and(|answer| answer.text() == "one")
        });
        let took = begun.elapsed();
        for host in hosts {
            assert_eq!(server.visitor(host).get("/").expect(200).text(), "<h1>first</h1>");
        }
        took
    };
    let fastest = back().min(back());
    let bound = PROMISED + 4 * first_start;
    assert!(fastest < bound, "it was back after {fastest:?}; the first start took {first_start:?}");
}

/// How soon a router that has ended serves again, on a machine that has nothing else to do.
const PROMISED: Duration = Duration::from_secs(2);

#[test]
fn a_router_that_ends_again_and_again_is_back_each_time() {
    let begun = Instant::now();
    let server = start(Setup::routed().as_user());
    let first_start = begun.elapsed();
    let mut fastest = Duration::MAX;
    for turn in 0..7 {
        let killed = caddy(&server);
        process::kill(killed);
        let begun = Instant::now();
        until("it answers again", STARTING, || {
            let answer = server.visitor("shop.localhost").try_request("GET", "/", None);
            caddy(&server) != killed && answer.is_ok_and(|answer| answer.status == 404)
        });
        // Pauses that double would be 4 s, 8 s and 15 s by now.
        if turn >= 4 {
            fastest = fastest.min(begun.elapsed());
        }
    }
    // It takes three with the pause that does not double; the best of three that did, more than four.
    let bound = PROMISED + Duration::from_millis(1_500) + 2 * first_start;
    assert!(fastest < bound, "it was back after {fastest:?}; the first start took {first_start:?}");
}

#[test]
fn a_router_that_says_nothing_any_more_is_started_anew() {
    let server = start(Setup::routed().as_user());
    let hung = caddy(&server);
    process::signal(hung, Signal::STOP);
    until("another one answers", 2 * STARTING, || {
        caddy(&server) != hung
            && server
                .visitor("shop.localhost")
                .try_request("GET", "/", None)
                .is_ok_and(|answer| answer.status == 404)
    });
    assert!(server.log().contains("the router has not answered"), "{}", server.log());
}

/// Whoever kills the server sees no route end, and the next server finds Caddy as it was.
fn server_dies_and_routes_stay(mut server: Server, app: &str) {
    let before = caddy(&server);
    let address = server.setup().router("HTTP_PORT");
    let mut held = Ws::at(address, "/ws").with("Host", "shop.localhost").open().expect("held");
    server.kill9();
    let mut visitor = server.visitor("shop.localhost");
    assert_eq!(visitor.get("/").expect(200).text(), "one");
    let in_force = led_to(&server, app);
    plant_routes(&server, app, &in_force);
    visitor.get("/").expect(502);
    let mut gone = server.visitor("gone.localhost");
    assert_eq!(gone.get("/").expect(200).text(), "one");
    let server = start(server.setup().clone());
    assert_eq!(led_to(&server, app), in_force, "the database counts");
    gone.get("/").expect(404);
    assert!(!server.data().join("router/apps/goneaaaaaa").exists());
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

/// What a server leaves that was killed after a switch and before it was noted, and in the middle of removing an app.
fn plant_routes(server: &Server, app: &str, in_force: &str) {
    let router = server.data().join("router");
    let owner = router.metadata().expect("a directory").uid();
    let ours = |path: &Path| {
        std::os::unix::fs::chown(path, Some(owner), Some(owner)).expect("an owner");
    };
    let write = |path: PathBuf| {
        std::fs::write(&path, "").expect("a route");
        ours(&path);
    };
    // They count down; its port is nobody's.
    write(router.join("apps").join(app).join("9999990000.p.1"));
    let gone = router.join("apps/goneaaaaaa");
    std::fs::create_dir(&gone).expect("a directory");
    ours(&gone);
    write(gone.join(format!("9999990000.{in_force}")));
    std::os::unix::fs::symlink("../apps/goneaaaaaa", router.join("hosts/gone.localhost"))
        .expect("a link");
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
    let place = server.data().join("apps").join(&app);
    until("the process of before has ended", STARTING, || sandboxes(&place).is_empty());

    owner.post(&format!("/api/apps/{app}/stop"), &json!({})).expect(202);
    until("the site is down", STARTING, || visitor.get("/").status == 503);
    owner.post(&format!("/api/apps/{app}/start"), &json!({})).expect(202);
    until("the site is up", STARTING, || visitor.get("/").status == 200);

    git.commit("site", &[("404.html", "<h1>ours</h1>"), ("index.html", "<h1>second</h1>")]);
    deploy_live(&mut owner, &app);
    assert_eq!(visitor.get("/nothing").expect(404).text(), "<h1>ours</h1>");
    roll_back(&mut owner, &app, &as_files);
    assert_eq!(visitor.get("/").expect(200).text(), "<h1>first</h1>");
    // Files are not restarted, and lose nothing by it.
    assert_eq!(restart(&mut owner, &app)["status"], "live");
    assert_eq!(visitor.get("/").expect(200).text(), "<h1>first</h1>");
    let rolled = roll_back(&mut owner, &app, &as_process);
    assert_eq!(visitor.get("/").expect(200).text(), "process");
    let server = server.restart();
    until_running(&server);
    let mut visitor = server.visitor("site.localhost");
    assert_eq!(visitor.get("/").expect(200).text(), "process");
    let mut owner = server.owner();
    let restarted = restart(&mut owner, &app);
    assert_eq!(restarted["status"], "live", "{restarted:#}");
    assert_eq!(visitor.get("/").expect(200).text(), "process");
    assert_eq!(show(&mut owner, &app)["liveDeployId"], restarted["id"]);
    let again = roll_back(&mut owner, &app, &rolled);
    assert_ne!(again, rolled);
    assert_eq!(visitor.get("/").expect(200).text(), "process");

    let server = server.restart_with(|setup| setup.env("ROUTER", "off"));
    files_that_nobody_serves_take_nobodys_place(&server, &app, &as_files);
}

fn files_that_nobody_serves_take_nobodys_place(server: &Server, app: &str, as_files: &str) {
    let mut owner = server.owner();
    let back = json!({"deployId": as_files});
    let answer = owner.post(&format!("/api/apps/{app}/rollback"), &back).expect(202).json();
    let end = ended(&mut owner, answer["id"].as_str().expect("an id"));
    assert_eq!(end["status"], "failed", "{end:#}");
    assert!(end["error"].as_str().is_some_and(|e| e.contains("ROUTER is off")), "{end:#}");
    assert_eq!(visitor(&mut owner, app).get("/").expect(200).text(), "process");
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
    assert_eq!(restart(&mut owner, &app)["status"], "live");
}
