//! The network (P21, P23, P24): where it listens, what it tells browsers, and a real Caddy in front.

use crate::harness::caddy::Caddy;
use crate::harness::server::run;
use crate::harness::{Answer, Http, Server, Setup, Ws};
use serde_json::json;
use std::net::{SocketAddr, TcpListener};
use std::process::Command;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(30);

fn opens(opening: crate::harness::ws::Opening) -> u16 {
    opening.open().map_or_else(|refusal| refusal.status, |_| 101)
}

#[test]
fn p21_all_interfaces_are_ipv4_and_ipv6() {
    let server = Setup::new().listen(":0").start();
    let port = server.address().port();
    for address in
        [SocketAddr::from(([127, 0, 0, 1], port)), format!("[::1]:{port}").parse().unwrap()]
    {
        Http::new(address).get("/healthz").expect(200);
        Http::new(address).bearer(&server.token()).get("/api/session").expect(200);
    }
}

#[test]
fn p21_the_default_is_port_8080_on_all_interfaces() {
    // Whether the port is free here or not, the answer names it.
    match Setup::new().without("LISTEN_ADDR").try_start() {
        Ok(server) => {
            assert_eq!(server.address().port(), 8080);
            Http::new("[::1]:8080".parse().unwrap()).get("/healthz").expect(200);
            Http::new("127.0.0.1:8080".parse().unwrap()).get("/healthz").expect(200);
        }
        Err(finished) => {
            assert_eq!(finished.code, Some(1));
            assert!(finished.stderr.contains(":8080"), "{finished:?}");
        }
    }
}

#[test]
fn p21_listen_addr_narrows_it() {
    let server = Setup::new().listen("127.0.0.5:0").start();
    let port = server.address().port();
    Http::new(([127, 0, 0, 5], port).into()).get("/healthz").expect(200);
    for elsewhere in [format!("127.0.0.1:{port}"), format!("[::1]:{port}")] {
        let answer = Http::new(elsewhere.parse().unwrap()).try_request("GET", "/healthz", None);
        assert!(answer.is_err(), "{elsewhere}");
    }
    let v6 = Setup::new().listen("[::1]:0").start();
    v6.owner().get("/api/session").expect(200);
}

#[test]
fn p21_a_port_in_use_is_one_sentence_and_exit_code_1() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for listen in [address.clone(), format!(":{}", taken.local_addr().unwrap().port())] {
        let finished = Setup::new().listen(&listen).run(&[]);
        assert_eq!(finished.code, Some(1), "{finished:?}");
        let last = finished.stderr.lines().last().unwrap();
        assert!(last.contains("in use") && last.contains("LISTEN_ADDR"), "{finished:?}");
    }
}

/// What every answer must tell a browser.
#[track_caller]
fn strict(answer: &Answer, what: &str) {
    assert_eq!(answer.header("X-Content-Type-Options"), Some("nosniff"), "{what}: {answer:?}");
    let policy = answer.header("Content-Security-Policy").expect(what);
    assert!(!policy.contains("unsafe-") && !policy.contains('*'), "{what}: {policy}");
    assert!(policy.contains("default-src 'none'"), "{what}: {policy}");
    assert!(policy.contains("frame-ancestors 'none'"), "{what}: {policy}");
    assert_eq!(answer.header("X-Frame-Options"), Some("DENY"), "{what}");
    assert_eq!(answer.header("Referrer-Policy"), Some("no-referrer"), "{what}");
    assert!(answer.header("Access-Control-Allow-Origin").is_none(), "{what}");
    assert!(answer.header("Server").is_none_or(|s| !s.contains(['0', '1'])), "{what}: a version");
}

#[test]
fn p23_browsers_are_told_to_be_strict() {
    let server = Server::start();
    let mut stranger = server.stranger();
    let page = stranger.get("/").expect(200);
    strict(&page, "the page");
    let policy = page.header("Content-Security-Policy").unwrap().to_owned();
    for directive in ["object-src 'none'", "base-uri 'none'", "script-src 'self'"] {
        assert!(policy.contains(directive), "{policy}");
    }
    let html = page.text();
    let mut files = Vec::new();
    for attribute in ["src=\"", "href=\""] {
        let after = html.split(attribute).skip(1);
        files.extend(after.filter_map(|rest| rest.split('"').next()).map(str::to_owned));
    }
    assert!(files.iter().any(|f| f.ends_with(".js")) && files.iter().any(|f| f.ends_with(".css")));
    for file in files.iter().filter(|f| !f.starts_with('#') && !f.starts_with("data:")) {
        let file = format!("/{}", file.trim_start_matches('/'));
        strict(&stranger.get(&file).expect(200), &file);
    }
    for word in ["<style", "style=\"", "onclick=", "javascript:"] {
        assert!(!html.contains(word), "{word}");
    }
    for (_, inside) in
        html.match_indices("<script").map(|(at, _)| html[at..].split_once('>').unwrap())
    {
        assert!(inside.starts_with("</script>"), "an inline script");
    }

    let mut owner = server.owner();
    for answer in [
        owner.get("/api/apps").expect(200),
        owner.get("/api/openapi.json").expect(200),
        owner.get("/api/nothing").expect(404),
        owner.post("/api/apps", &json!({"x": 1})).expect(400),
        stranger.get("/api/apps").expect(401),
        stranger.request("DELETE", "/api/apps", None).expect(401),
    ] {
        strict(&answer, "the API");
        assert_eq!(answer.header("Cache-Control"), Some("no-store"));
        assert!(answer.header("Content-Type").unwrap().starts_with("application/json"));
    }
    strict(&stranger.get("/nothing").expect(404), "nothing");
    strict(&stranger.request("TRACE", "/", None), "the gate's refusal");
    let refused = Ws::at(server.address(), "/ws/stats").open().err().expect("no token");
    strict(&refused, "a refused WebSocket");
}

#[test]
fn p23_https_is_remembered_when_a_trusted_proxy_speaks_it() {
    let trusting = Setup::new().trust_proxy().start();
    let mut behind_tls = trusting.stranger().with("X-Forwarded-Proto", "https");
    for path in ["/", "/api/apps", "/healthz"] {
        let answer = behind_tls.get(path);
        let header = answer.header("Strict-Transport-Security");
        assert!(header.is_some_and(|h| h.contains("max-age=")), "{path}: {answer:?}");
    }
    // Refusals too: of the gate, and of WebSockets.
    behind_tls.get("/healthz").expect(200);
    let refused = behind_tls.request("TRACE", "/", None).expect(405);
    assert!(refused.header("Strict-Transport-Security").is_some(), "{refused:?}");
    let socket = || Ws::at(trusting.address(), "/ws/stats");
    let unproved = socket().with("X-Forwarded-Proto", "https").open().err().expect("a refusal");
    assert!(unproved.header("Strict-Transport-Security").is_some(), "{unproved:?}");
    let unproved = socket().open().err().expect("a refusal");
    assert_eq!(unproved.header("Strict-Transport-Security"), None);
    let plain = trusting.stranger().get("/");
    assert_eq!(plain.header("Strict-Transport-Security"), None);
    let unasked = Server::start().stranger().with("X-Forwarded-Proto", "https").get("/");
    assert_eq!(unasked.header("Strict-Transport-Security"), None, "nobody vouches for it");
}

#[test]
fn p23_a_websocket_from_another_origin_is_refused_unless_dashboard_origin_names_it() {
    let server = Server::start();
    let (host, token) = (server.address(), server.token());
    let from = |server: &Server, origin: &str| {
        let path = format!("/ws/stats?token={}", server.token());
        opens(Ws::at(server.address(), &path).with("Origin", origin))
    };
    for other in [
        "http://evil.example",
        "null",
        "file://",
        "",
        &format!("http://{host}.evil.example"),
        &format!("http://evil.example/{host}"),
        &format!("http://127.0.0.1:{}", host.port().wrapping_add(1)),
        &format!("http://localhost:{}", host.port()),
    ] {
        assert_eq!(from(&server, other), 403, "{other}");
    }
    assert_eq!(from(&server, &format!("http://{host}")), 101);
    assert_eq!(opens(Ws::at(host, &format!("/ws/stats?token={token}"))), 101, "no browser");
    // A stranger learns nothing from the difference.
    let stranger = Ws::at(host, "/ws/stats?token=guess").with("Origin", "http://evil.example");
    assert!(matches!(opens(stranger), 401 | 403));

    let named = Setup::new().env("DASHBOARD_ORIGIN", "https://Paas.Example.com:443/").start();
    assert_eq!(from(&named, "https://paas.example.com"), 101);
    for other in ["http://paas.example.com", "https://paas.example.com:8443", "https://example.com"]
    {
        assert_eq!(from(&named, other), 403, "{other}");
    }
}

/// Walks through the house over a connection that may lead through a proxy.
fn walk(server: &Server, through: SocketAddr) {
    let mut owner = Http::new(through).bearer(&server.token());
    owner.get("/api/session").expect(200);
    let app = json!({"name": "shop", "gitRepo": "https://git.example.com/shop.git"});
    let created = owner.post("/api/apps", &app).expect(201);
    let id = created.json()["id"].as_str().unwrap().to_owned();
    assert_eq!(created.header("Location"), Some(format!("/api/apps/{id}").as_str()));
    let env = json!({"env": [{"name": "A", "value": "1"}]});
    owner.put(&format!("/api/apps/{id}/env"), &env).expect(200);
    assert_eq!(owner.get("/api/apps").expect(200).json()["apps"][0]["id"], *id);
    owner.patch(&format!("/api/apps/{id}"), &json!({"branch": "next"})).expect(200);
    // Caddy unpacks what it got compressed for those who say nothing, and then sends it in chunks.
    let mut plain = Http::new(through).with("Accept-Encoding", "identity");
    assert!(plain.get("/").expect(200).text().contains("<html"));

    let ticket = owner.post("/api/ws-ticket", &json!({})).expect(200).json();
    let path = format!("/ws/stats?ticket={}", ticket["ticket"].as_str().unwrap());
    let origin = format!("http://{through}");
    let mut socket = Ws::at(through, &path).with("Origin", &origin).open().unwrap();
    let _every_second = socket.find(SOON, |message| message.as_object().cloned());
    assert!(socket.is_alive());
    assert_eq!(opens(Ws::at(through, &path).with("Origin", "http://evil.example")), 403);
    assert!(owner.delete(&format!("/api/apps/{id}")).status < 300);
    // The end of a session reaches the other side too.
    assert_eq!(server.operator(&["token", "--rotate"]).code, Some(0));
    socket.wait_for_close(SOON);
    owner.get("/api/session").expect(401);
}

#[test]
fn p24_behind_a_real_caddy_everything_works_the_same() {
    let server = Setup::new().trust_proxy().start();
    let caddy = Caddy::in_front_of(server.address());
    walk(&server, caddy.address());
    // The proxy is no client: its guests are.
    for _ in 0..5 {
        Http::new(caddy.address())
            .coming_from([127, 0, 0, 66])
            .bearer("guess")
            .get("/api/session")
            .expect(401);
    }
}

#[test]
fn p24_without_trust_proxy_the_proxy_is_the_client_and_a_guest_cannot_pretend() {
    let server = Server::start();
    let caddy = Caddy::in_front_of(server.address());
    for number in 0..5 {
        let mut guest = Http::new(caddy.address()).bearer("guess");
        guest = guest.forwarded_for(&format!("198.51.100.{number}"));
        guest.get("/api/session").expect(401);
    }
    Http::new(caddy.address()).bearer(&server.token()).get("/api/session").expect(429);
    server.owner().coming_from([127, 0, 0, 2]).get("/api/session").expect(200);
}

#[test]
fn p24_behind_caddy_with_tls_the_browser_is_told_to_stay_with_it() {
    let server = Setup::new().trust_proxy().start();
    let caddy = Caddy::with_tls_in_front_of(server.address());
    let authority = caddy.authority();
    let url = format!("https://localhost:{}", caddy.address().port());
    let curl = |path: &str, arguments: &[&str]| {
        let mut command = Command::new("curl");
        command.args(["-sS", "-i", "--http1.1", "--max-time", "15", "--retry", "5"]);
        command.args(["--retry-all-errors", "--cacert"]).arg(&authority);
        run(command.args(arguments).arg(format!("{url}{path}")))
    };
    let page = curl("/", &[]).to_lowercase();
    assert!(
        page.starts_with("http/1.1 200") && page.contains("strict-transport-security:"),
        "{page}"
    );
    let owner = format!("Authorization: Bearer {}", server.token());
    let session = curl("/api/session", &["-H", &owner]);
    assert!(session.starts_with("HTTP/1.1 200"), "{session}");
    let origin = format!("Origin: {url}");
    let upgrade = |origin: &str| {
        let path = format!("/ws/stats?token={}", server.token());
        let output = Command::new("curl")
            .args(["-sS", "-i", "--http1.1", "--max-time", "3", "--cacert"])
            .arg(&authority)
            .args(["-H", "Connection: Upgrade", "-H", "Upgrade: websocket", "-H", origin])
            .args(["-H", "Sec-WebSocket-Version: 13"])
            .args(["-H", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="])
            .arg(format!("{url}{path}"))
            .output()
            .expect("curl");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert!(upgrade(&origin).starts_with("HTTP/1.1 101"), "{}", upgrade(&origin));
    assert!(upgrade("Origin: https://evil.example").starts_with("HTTP/1.1 403"));
}
