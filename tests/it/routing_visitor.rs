//! What an app and the dashboard are told about a visitor, and what an app can do to the router with its answers.

use crate::harness::apps::{create, deploy_live};
use crate::harness::raw::RawConn;
use crate::harness::routed::{caddy, https, private, release, router, start, until_running};
use crate::harness::{GitServer, Http, Server};
use serde_json::{Value, json};
use std::process::Command;

/// What a visitor says of himself, in the spellings that somebody believes.
const FORGED: [&str; 90] = [
    "Forwarded",
    "X-Forwarded-For",
    "X-FORWARDED-FOR",
    "x-forwarded-for",
    "X_Forwarded_For",
    "X-Forwarded_For",
    "X.Forwarded.For",
    "X-Forwarded-Host",
    "X-Forwarded-Port",
    "X-Forwarded-Prefix",
    "X-Forwarded-Ssl",
    "X-Forwarded-Server",
    "X-Forwarded-Proto",
    "X-Forwarded-Protocol",
    "X-Forwarded-Scheme",
    "X-Forwarded-User",
    "X-Forwarded-By",
    "X-Forwarded",
    "Forwarded-For",
    "X-Forward-For",
    "X-Original-Forwarded-For",
    "X-Real-IP",
    "X-Real_ip",
    "x_real_ip",
    "X.Real.Ip",
    "Client-IP",
    "Client_Ip",
    "True-Client-IP",
    "X-Client-IP",
    "X-Cluster-Client-IP",
    "Fastly-Client-IP",
    "Fly-Client-IP",
    "X-Azure-ClientIP",
    "X-ClientIP",
    "CF-Connecting-IP",
    "CF-Connecting-IPv6",
    "CF-Pseudo-IPv4",
    "CF-Visitor",
    "Do-Connecting-IP",
    "X-User-IP",
    "X-Remote-IP",
    "X-Remote-Addr",
    "Remote-Addr",
    "Remote_Addr",
    "Remote-User",
    "X-Remote-User",
    "X-Original-URL",
    "X-Original-Host",
    "X-Rewrite-URL",
    "X-Host",
    "X-Scheme",
    "X-Url-Scheme",
    "Front-End-Https",
    "X-Real-Host",
    "X-Real-Proto",
    "X-Tls-Client-Dn",
    "X-Client-S-Dn",
    "X-Https-On",
    "X-Request-Scheme",
    "X-Host-Override",
    "Server-Name",
    "Server-Port",
    "Request-Uri",
    "X-Replaced-Path",
    "X-Peer-Addr",
    "X-Auth-Request-User",
    "X-Webauth-User",
    "X-Authentik-Username",
    "X-Goog-Authenticated-User-Email",
    "X-Amzn-Oidc-Identity",
    "X-Ms-Client-Principal-Name",
    "Tailscale-User-Login",
    "Auth-User",
    "Https",
    "Proxy",
    "Proxy-Client-IP",
    "WL-Proxy-Client-IP",
    "WL-Proxy-SSL",
    "X-Envoy-External-Address",
    "X-ARR-SSL",
    "SSL-Client-Verify",
    "X-SSL-Client-DN",
    "Client-Cert",
    "Script-Name",
    "SCRIPT_NAME",
    "Path-Info",
    "CloudFront-Forwarded-Proto",
    "CloudFront-Viewer-Address",
    "X-Sendfile-Type",
    "HTTPS_",
];

/// What no app can do without.
const OWN: [(&str, &str); 7] = [
    ("Authorization", "Bearer visitor"),
    ("Cookie", "session=visitor"),
    ("Origin", "http://visitor.test"),
    ("X-Csrf-Token", "visitor"),
    ("X-Client-Version", "visitor"),
    ("X-Request-Id", "visitor"),
    ("Sec-Ch-Ua-Platform", "visitor"),
];

/// The fields that an app got of what is not sent by itself. Newer routers say their own name, in `Via`.
fn fields_of(fields: &Value) -> Vec<(String, String)> {
    let own = |name: &str| OWN.iter().any(|(n, _)| n.eq_ignore_ascii_case(name));
    let transport =
        ["host", "user-agent", "accept", "connection", "upgrade", "content-length", "via"];
    let mut told = Vec::new();
    for field in fields.as_array().expect("a list") {
        let text = |at: usize| field[at].as_str().expect("a text").to_owned();
        let (name, value) = (text(0).to_ascii_lowercase(), text(1));
        if !own(&name) && !transport.contains(&name.as_str()) {
            told.push((name, value));
        }
    }
    told.sort();
    told
}

/// All that an app is told by the router.
fn word(client: &str, host: &str, scheme: &str) -> Vec<(String, String)> {
    let word = [
        ("x-forwarded-for", client),
        ("x-forwarded-host", host),
        ("x-forwarded-proto", scheme),
        ("x-real-ip", client),
    ];
    word.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec()
}

#[test]
fn p33_an_app_hears_the_routers_word_on_a_visitor_and_no_other_in_any_spelling() {
    let git = GitServer::start();
    git.commit("shop", &release("one"));
    let server = start(private().as_user());
    let body = json!({"name": "shop", "gitRepo": git.url("shop"), "domains": ["shop.test"]});
    let app = create(&mut server.owner(), &body);
    deploy_live(&mut server.owner(), &app);

    let hosts = "shop.localhost";
    for hop_by_hop in [None, Some("X-Forwarded-For, X-Real-Ip, X-Forwarded-Proto"), Some("Upgrade")]
    {
        let mut visitor = server.visitor(hosts);
        for name in FORGED {
            visitor = visitor.also(name, "forged");
        }
        for (name, value) in OWN {
            visitor = visitor.also(name, value);
        }
        if let Some(names) = hop_by_hop {
            visitor = visitor.also("Connection", names).also("Upgrade", "websocket");
        }
        let fields = visitor.get("/fields").expect(200).json();
        assert_eq!(fields_of(&fields), word("127.0.0.1", hosts, "http"), "{fields}");
        for (name, value) in OWN {
            assert!(fields.to_string().contains(&format!("[\"{name}\",\"{value}\"]")), "{name}");
        }
    }
    // The same over HTTP/2, whose names are in lower case.
    let mut arguments =
        vec!["--http2".to_owned(), "-w".to_owned(), "%{stderr}%{http_version}".to_owned()];
    for name in FORGED {
        arguments.extend(["-H".to_owned(), format!("{}: forged", name.to_ascii_lowercase())]);
    }
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let port = server.setup().router("HTTPS_PORT").port();
    https(&server, "shop.test", "/", &[]).expect(200);
    let output = Command::new("curl")
        .args(["-sS", "-k", "--resolve", &format!("shop.test:{port}:127.0.0.1")])
        .args(&arguments)
        .arg(format!("https://shop.test:{port}/fields"))
        .output()
        .expect("curl");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "2");
    let fields = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(
        fields_of(&fields),
        word("127.0.0.1", &format!("shop.test:{port}"), "https"),
        "{fields}"
    );
}

/// A proxy of the owner's in front, and a stranger.
const PROXY: [u8; 4] = [127, 0, 0, 2];
const STRANGER: [u8; 4] = [127, 0, 0, 3];

#[test]
fn p33_behind_a_trusted_proxy_an_app_and_the_dashboard_know_the_client() {
    let git = GitServer::start();
    git.commit("shop", &release("one"));
    let trusted = "127.0.0.2, 10.0.0.0/9, 2400:cb00::/32";
    let server = start(private().env("TRUST_PROXY", trusted).as_user());
    let body = json!({"name": "shop", "gitRepo": git.url("shop"), "domains": ["shop.test"]});
    let app = create(&mut server.owner(), &body);
    deploy_live(&mut server.owner(), &app);

    let host = "shop.localhost";
    let from = |peer| server.visitor(host).coming_from(peer).with("X-Real-IP", "192.0.2.66");
    for (lines, client) in [
        (&[][..], "127.0.0.2"),
        (&["203.0.113.7"], "203.0.113.7"),
        (&["192.0.2.66, 203.0.113.7"], "203.0.113.7"),
        (&["192.0.2.66", "203.0.113.7, 10.127.255.255", "2400:CB00::1"], "203.0.113.7"),
        (&["192.0.2.66, 10.128.0.0,[2400:cb00:1::]:443 ,10.0.0.1:80"], "10.128.0.0"),
        (&["2001:db8::7, ::ffff:10.0.0.1"], "2001:db8::7"),
        (&["192.0.2.66, unknown, 10.0.0.1"], "10.0.0.1"),
        (&["192.0.2.66, {http.request.remote.host}"], "127.0.0.2"),
        (&["10.0.0.2, 10.0.0.1"], "10.0.0.2"),
    ] {
        let mut visitor = from(PROXY).with("X-Forwarded-Proto", "https");
        for line in lines {
            visitor = visitor.also("X-Forwarded-For", line);
        }
        let fields = visitor.get("/fields").expect(200).json();
        assert_eq!(fields_of(&fields), word(client, host, "https"), "{lines:?}");
        let mut stranger = from(STRANGER).with("X-Forwarded-Proto", "https");
        for line in lines {
            stranger = stranger.also("X-Forwarded-For", line);
        }
        let fields = stranger.get("/fields").expect(200).json();
        assert_eq!(fields_of(&fields), word("127.0.0.3", host, "http"), "{lines:?}");
    }
    for (said, scheme) in
        [("HTTPS", "https"), ("http", "http"), ("https, http", "http"), ("wss", "http")]
    {
        let fields = from(PROXY).with("X-Forwarded-Proto", said).get("/fields").expect(200).json();
        assert_eq!(fields_of(&fields), word("127.0.0.2", host, scheme), "{said}");
    }
    // A walk through 32 KiB would cost the router many times what a request costs.
    let long = |length: usize| {
        let list = "1".repeat(length);
        from(PROXY).also("X-Forwarded-For", "203.0.113.7").also("X-Forwarded-For", &list)
    };
    long(1024 - 12).get("/fields").expect(200);
    long(1024 - 11).get("/fields").expect(431);
    // Whoever came over HTTPS is not sent there again.
    let encrypted =
        |peer| server.visitor("shop.test").coming_from(peer).with("X-Forwarded-Proto", "https");
    assert_eq!(encrypted(PROXY).get("/").expect(200).text(), "one");
    encrypted(STRANGER).get("/").expect(308);
    the_dashboard_counts_the_client(&server);
}

fn the_dashboard_counts_the_client(server: &Server) {
    let seen = [
        "-H",
        "Authorization: Bearer wrong",
        "-H",
        "X-Forwarded-For: 192.0.2.66, 203.0.113.7, 10.0.0.1",
    ];
    for (peer, client) in [("127.0.0.2", "203.0.113.7"), ("127.0.0.3", "127.0.0.3")] {
        let arguments = [&seen[..], &["--interface", peer]].concat();
        for _ in 0..5 {
            https(server, "paas.localhost", "/api/session", &arguments).expect(401);
        }
        https(server, "paas.localhost", "/api/session", &arguments).expect(429);
        let lockouts = server.operator(&["lockouts"]).stdout;
        assert!(lockouts.contains(client) && !lockouts.contains("192.0.2.66"), "{lockouts}");
    }
}

#[test]
fn p32_cookies_of_other_hosts_do_not_keep_the_owner_out_of_the_dashboard() {
    let base = private().env("BASE_DOMAIN", "apps.test");
    let server = start(base.env("DASHBOARD_DOMAIN", "paas.apps.test"));
    let cookies: Vec<String> =
        (0..5).map(|n| format!("Cookie: c{n}={}", "x".repeat(3500))).collect();
    let mut arguments = Vec::new();
    cookies.iter().for_each(|cookie| arguments.extend(["-H", cookie]));
    let page = https(&server, "paas.apps.test", "/", &arguments).expect(200);
    assert!(page.text().contains("<html"), "{}", page.text());
    // More than that, no server takes: the owner is told.
    let sentence = "paas.apps.test lies within BASE_DOMAIN, so every app can set cookies";
    assert!(server.log().contains(sentence), "{}", server.log());
    let message = router(&mut server.owner())["message"].clone();
    assert!(message.as_str().is_some_and(|m| m.contains(sentence)), "{message}");
    let server = server.restart_with(|setup| setup.env("DASHBOARD_DOMAIN", "paas.test"));
    until_running(&server);
    assert!(router(&mut server.owner())["message"].is_null());
}

/// An app that never ends its head: many short fields, which take the most memory.
const ENDLESS: &str = r#"import os, socket, threading
listener = socket.create_server(("127.0.0.1", int(os.environ["PORT"])))
def answer(c):
    try:
        if b" /endless" not in c.recv(65536):
            return c.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
        c.sendall(b"HTTP/1.1 200 OK\r\n")
        n = 0
        while True:
            c.sendall(b"".join(b"X-%d: a\r\n" % i for i in range(n, n + 1000)))
            n += 1000
    except OSError:
        pass
    finally:
        c.close()
while True:
    threading.Thread(target=answer, args=listener.accept()[:1], daemon=True).start()
"#;

/// What Caddy may grow by, in KiB: without a bound, one such answer made it 100 MB larger.
const GROWTH: u64 = 48 * 1024;

#[test]
fn p32_an_app_whose_answer_has_no_end_takes_neither_the_routers_memory_nor_its_time() {
    let git = GitServer::start();
    git.commit("bad", &[("Procfile", "web: python3 main.py\n"), ("main.py", ENDLESS)]);
    git.commit("shop", &release("one"));
    let server = start(crate::harness::Setup::routed().as_user());
    for name in ["bad", "shop"] {
        let app = create(&mut server.owner(), &json!({"name": name, "gitRepo": git.url(name)}));
        deploy_live(&mut server.owner(), &app);
    }
    let peak = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", caddy(&server)));
        let status = status.expect("Caddy runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
        line.trim_end_matches("kB").trim().parse::<u64>().expect("a number")
    };
    assert_eq!(server.visitor("bad.localhost").get("/").expect(200).text(), "ok");
    let before = peak();
    let router = server.setup().router("HTTP_PORT");
    let ask = || {
        let mut asked = RawConn::to(router);
        asked.send("GET /endless HTTP/1.1\r\nHost: bad.localhost\r\n\r\n");
        asked
    };
    let asked: Vec<RawConn> = std::iter::repeat_with(ask).take(8).collect();
    let mut visitor: Http = server.visitor("shop.localhost");
    assert_eq!(visitor.get("/").expect(200).text(), "one");
    for mut asked in asked {
        asked.answer().expect(502);
    }
    let grown = peak() - before;
    assert!(grown < GROWTH, "Caddy has grown by {grown} KiB");
    assert_eq!(visitor.get("/").expect(200).text(), "one");
}
