//! Names behind the router: an app's own domains, certificates, the dashboard's domain, and what is refused.

use crate::harness::apps::{create, deploy_live, show};
use crate::harness::obedient::OBEDIENT;
use crate::harness::routed::{
    STARTING, caddy, https, private, release, router, start, until_running,
};
use crate::harness::{GitServer, Http, Netns, Server, Setup, until};
use serde_json::json;
use std::net::TcpListener;

/// The second one is what an app of the name `also` would get.
const DOMAINS: [&str; 2] = ["shop.example.com", "also.localhost"];

#[test]
fn domains_change_at_once_and_a_refused_one_changes_nothing() {
    let git = GitServer::start();
    git.commit("shop", &release("one"));
    let server = start(private().as_user());
    let mut owner = server.owner();
    let body = json!({"name": "shop", "gitRepo": git.url("shop"), "domains": DOMAINS});
    let app = create(&mut owner, &body);
    deploy_live(&mut owner, &app);
    let port = server.setup().router("HTTPS_PORT").port();
    assert_eq!(https(&server, "shop.example.com", "/", &[]).expect(200).text(), "one");
    let shown = show(&mut owner, &app);
    let own = format!("https://shop.example.com:{port}");
    let [also, usual] = ["also", "shop"].map(|name| {
        format!("http://{name}.localhost:{}", server.setup().router("HTTP_PORT").port())
    });
    assert_eq!((&shown["url"], &shown["urls"]), (&json!(own), &json!([own, also, usual])));
    let there = format!("https://shop.example.com:{port}/cart?n=1");
    for host in
        ["shop.example.com", "Shop.Example.com.", "shop.example.com..", "shop.example.com.:80"]
    {
        let plain = server.visitor(host).get("/cart?n=1").expect(308);
        assert_eq!(plain.header("location"), Some(there.as_str()), "{host}");
    }
    assert_eq!(server.visitor("shop.localhost").get("/").expect(200).text(), "one");

    for (field, value, code) in [
        ("domains", json!(["shop.example.com"]), "domain_taken"),
        ("domains", json!(["paas.localhost"]), "host_refused"),
        ("domains", json!(["a.example.com", "shop.localhost"]), "host_refused"),
        ("name", json!("paas"), "host_refused"),
        ("name", json!("also"), "host_refused"),
    ] {
        let mut body = json!({"name": "other", "gitRepo": git.url("shop")});
        body[field] = value;
        let refusal = owner.post("/api/apps", &body).expect(409);
        assert_eq!(refusal.code(), code, "{body}");
        assert_eq!(refusal.json()["error"]["field"], field, "{body}");
    }
    assert_eq!(https(&server, "shop.example.com", "/", &[]).expect(200).text(), "one");

    let path = format!("/api/apps/{app}");
    owner.patch(&path, &json!({"domains": ["new.example.com"]})).expect(200);
    assert_eq!(https(&server, "new.example.com", "/", &[]).expect(200).text(), "one");
    server.visitor("shop.example.com").get("/").expect(404);
    owner.delete(&path).expect(204);
    server.visitor("new.example.com").get("/").expect(404);
    owner.post("/api/apps", &body).expect(201);
}

#[test]
fn the_dashboard_answers_over_https_at_its_domain_and_knows_its_clients() {
    let server = start(private());
    let host = "paas.localhost";
    let page = https(&server, host, "/", &[]).expect(200);
    assert!(page.header("strict-transport-security").is_some(), "{page:?}");
    server.visitor(host).get("/").expect(308);
    let port = server.setup().router("HTTPS_PORT").port();
    let upgrade = |origin: &str| {
        let path = format!("/ws/stats?token={}", server.token());
        let origin = format!("Origin: {origin}");
        let headers = ["Upgrade: websocket", "Sec-WebSocket-Version: 13", origin.as_str()];
        let mut arguments = vec!["-H", "Connection: Upgrade"];
        headers.iter().for_each(|header| arguments.extend(["-H", header]));
        arguments.extend(["-H", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="]);
        https(&server, host, &path, &arguments).status
    };
    assert_eq!(upgrade(&format!("https://{host}:{port}")), 101);
    assert_eq!(upgrade("https://elsewhere.example"), 403);
    let wrong = ["-H", "Authorization: Bearer wrong", "-H", "X-Forwarded-For: 192.0.2.66"];
    for _ in 0..6 {
        https(&server, host, "/api/session", &wrong);
    }
    https(&server, host, "/api/session", &wrong).expect(429);
    let seen = server.operator(&["lockouts"]).stdout;
    assert!(seen.contains("127.0.0.1") && !seen.contains("192.0.2.66"), "{seen}");
}

#[test]
fn an_app_whose_host_the_dashboard_has_taken_is_named() {
    let server = Setup::routed().env("PRIVATE_TLS", "true").start();
    let app = json!({"name": "paas", "gitRepo": "http://127.0.0.1:1/a/b.git", "branch": "main"});
    let app = create(&mut server.owner(), &app);
    let server = server.restart_with(|setup| setup.env("DASHBOARD_DOMAIN", "paas.localhost"));
    until_running(&server);
    let sentence = "paas.localhost is where the dashboard answers, so app paas does not";
    assert!(server.log().contains(sentence), "{}", server.log());
    let mut owner = server.owner();
    let message = router(&mut owner)["message"].as_str().expect("a sentence").to_owned();
    assert!(message.contains(sentence), "{message}");
    owner.patch(&format!("/api/apps/{app}"), &json!({"name": "other"})).expect(200);
    assert!(router(&mut owner)["message"].is_null());
}

#[test]
fn what_an_app_gets_by_its_name_leads_to_no_other_app_that_has_it_as_a_domain() {
    let git = GitServer::start();
    let server = start(Setup::routed());
    let mut owner = server.owner();
    let host = "shop.apps.test";
    let [shop, zeta] = [("shop", json!([])), ("zeta", json!([host]))].map(|(name, domains)| {
        git.commit(name, &release(name));
        let body = json!({"name": name, "gitRepo": git.url(name), "domains": domains});
        let app = create(&mut owner, &body);
        deploy_live(&mut owner, &app);
        format!("/api/apps/{app}")
    });
    let answers = |server: &Server| server.visitor(host).get("/").expect(200).text();
    assert_eq!(answers(&server), "zeta");
    let server = server.restart_with(|setup| setup.env("BASE_DOMAIN", "apps.test"));
    until_running(&server);
    let mut owner = server.owner();
    let sentence = format!("{host} is where app shop answers, so app zeta does not");
    assert!(server.log().contains(&sentence), "{}", server.log());
    assert!(router(&mut owner)["message"].as_str().is_some_and(|m| m.contains(&sentence)));
    for app in [&shop, &zeta] {
        assert_eq!(answers(&server), "shop");
        owner.patch(app, &json!({"autoDeploy": false})).expect(200);
    }
    deploy_live(&mut owner, shop.trim_start_matches("/api/apps/"));
    assert_eq!(answers(&server), "shop");
    owner.patch(&shop, &json!({"name": "other"})).expect(200);
    assert_eq!(answers(&server), "zeta");
    assert!(router(&mut owner)["message"].is_null());
}

/// In a network of its own, where nobody else has the usual ports.
#[test]
fn a_router_takes_the_usual_ports_as_soon_as_it_can_and_says_so_until_then() {
    if !rustix::process::getuid().is_root() {
        eprintln!("NOT TESTED: only root makes networks");
        return;
    }
    let net = Netns::new();
    Netns::within(&net.machine, || {
        let usual = private().without("HTTP_PORT").without("HTTPS_PORT");
        let server = start(usual.as_user());
        let said = |server: &Server, why: &str| {
            let router = router(&mut server.owner());
            for (usual, other) in [(80, 8081), (443, 8443)] {
                let line =
                    format!("port {usual} cannot be had ({why}); the router takes port {other}");
                server.wait_for_log(&line);
                assert!(router["message"].as_str().is_some_and(|m| m.contains(&line)), "{router}");
            }
            assert_eq!((&router["httpPort"], &router["httpsPort"]), (&json!(8081), &json!(8443)));
        };
        said(&server, "Permission denied (os error 13)");
        Http::new("127.0.0.1:8081".parse().expect("an address")).host("x").get("/").expect(404);
        drop(server);
        // Root may have them, unless others have.
        let taken = ["127.0.0.1:80", "127.0.0.1:443"].map(|a| TcpListener::bind(a).expect("free"));
        let fresh = Setup::routed().env("PRIVATE_TLS", "true");
        let fresh = fresh.env("DASHBOARD_DOMAIN", "paas.localhost");
        let server = start(fresh.without("HTTP_PORT").without("HTTPS_PORT"));
        said(&server, "Address already in use (os error 98)");
        let server = server.restart();
        until_running(&server);
        said(&server, "Address already in use (os error 98)");
        let pid = caddy(&server);
        drop(taken);
        let mut owner = server.owner();
        until("it has the usual ports", 3 * STARTING, || router(&mut owner)["httpPort"] == 80);
        let seen = router(&mut owner);
        assert_eq!((&seen["httpsPort"], &seen["message"]), (&json!(443), &json!(null)), "{seen}");
        assert_eq!(caddy(&server), pid, "who serves is not disturbed");
        Http::new("127.0.0.1:80".parse().expect("an address")).host("x").get("/").expect(404);
        drop(server);
        low_ports_are_the_routers_and_no_apps();
    });
}

/// With the capability that the service's unit gives to an ordinary user's server.
fn low_ports_are_the_routers_and_no_apps() {
    let git = GitServer::start();
    git.commit("obedient", &OBEDIENT);
    let setup = private().without("HTTP_PORT").without("HTTPS_PORT");
    let server = start(setup.as_user().with_low_ports());
    let mut owner = server.owner();
    let ports = router(&mut owner);
    assert_eq!((&ports["httpPort"], &ports["httpsPort"]), (&json!(80), &json!(443)));
    let body = json!({"name": "app", "gitRepo": git.url("obedient"), "healthPath": "/"});
    let app = create(&mut owner, &body);
    deploy_live(&mut owner, &app);
    let mut visitor = Http::new("127.0.0.1:80".parse().expect("an address")).host("app.localhost");
    let tries =
        "python3 -c 'import socket; socket.create_server((\"127.0.0.1\", 81))' && echo bound";
    let said = visitor.request("POST", "/shell", Some(tries.as_bytes())).expect(200).text();
    assert!(said.contains("PermissionError") && !said.contains("bound"), "{said}");
}

#[test]
fn a_router_that_cannot_run_says_so_and_keeps_nothing_else_from_working() {
    let git = GitServer::start();
    git.commit("shop", &release("one"));
    let setup = Setup::routed();
    let taken = TcpListener::bind(setup.router("HTTP_PORT")).expect("a listener");
    let server = setup.start();
    let mut owner = server.owner();
    until("the router is missing", STARTING, || router(&mut owner)["state"] == "missing");
    let why = router(&mut owner)["message"].as_str().expect("a sentence").to_owned();
    assert!(why.contains("HTTP_PORT"), "{why}");
    let app = create(&mut owner, &json!({"name": "shop", "gitRepo": git.url("shop")}));
    deploy_live(&mut owner, &app);
    let url = show(&mut owner, &app)["url"].as_str().expect("a url").to_owned();
    assert!(url.starts_with("http://127.0.0.1:"), "{url}");
    drop(taken);
    until_running(&server);
    assert_eq!(server.visitor("shop.localhost").get("/").expect(200).text(), "one");
}

#[test]
fn without_caddy_the_server_says_what_to_install() {
    if !rustix::process::getuid().is_root() {
        return;
    }
    // In a mount namespace of its own nobody else misses it.
    let hidden = "exec unshare -m sh -c 'mount --bind /dev/null /usr/bin/caddy && exec \"$0\" \"$@\"' \"$0\" \"$@\"";
    let server = Setup::routed().shell(hidden).start();
    let mut owner = server.owner();
    until("the router is missing", STARTING, || router(&mut owner)["state"] == "missing");
    let why = router(&mut owner)["message"].as_str().expect("a sentence").to_owned();
    assert!(why.contains("apt install caddy"), "{why}");
    server.wait_for_log("apt install caddy");
}
