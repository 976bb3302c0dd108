//! Who may open a session; how the others are refused.

use super::*;
use crate::auth::Verdict;

fn safe(answer: &str) {
    for line in [
        "Content-Type: application/json",
        "Cache-Control: no-store",
        "X-Content-Type-Options: nosniff",
        "Connection: close",
    ] {
        assert!(answer.lines().any(|l| l == line), "{line} is missing in {answer}");
    }
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let body: serde_json::Value = serde_json::from_str(body).unwrap();
    assert!(body["error"]["code"].is_string() && body["error"]["message"].is_string());
    let length = head.lines().find_map(|l| l.strip_prefix("Content-Length: ")).unwrap();
    assert_eq!(length.parse::<usize>().unwrap(), answer.len() - head.len() - 4);
}

#[test]
fn a_socket_opens_with_the_token_or_a_ticket_and_with_nothing_else_p3() {
    let server = Server::start(quick());
    let token = server.auth.token();
    let (status, answer) = server.try_open("/ws/stats", "");
    assert_eq!(status, 401);
    assert!(answer.contains("WWW-Authenticate: Bearer\r\n") && answer.contains("token_missing"));
    safe(&answer);
    let bearer = format!("Authorization: Bearer {}\r\n", token.expose());
    assert_eq!(server.try_open("/ws/stats", &bearer).0, 401);
    assert_eq!(server.try_open("/ws/stats?token=", "").0, 401);
    let (status, answer) = server.try_open("/ws/stats?token=wrong", "");
    assert_eq!((status, answer.contains("token_wrong")), (401, true));
    assert_eq!(server.proved.load(Ordering::Relaxed), 0);

    let (status, answer) = server.try_open(&format!("/ws/stats?x=1&token={}", token.expose()), "");
    assert_eq!(status, 101);
    assert!(answer.contains("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"));
    let encoded: String = token.expose().bytes().map(|b| format!("%{b:02X}")).collect();
    assert_eq!(server.try_open(&format!("/ws/stats?token={encoded}"), "").0, 101);
    assert_eq!(server.proved.load(Ordering::Relaxed), 2);

    let Verdict::Allowed(session) =
        server.auth.decide(Some(token.expose().as_bytes()), Client::parse("::1").unwrap())
    else {
        panic!("refused")
    };
    let ticket = server.auth.open_ticket(&session).unwrap();
    let target = format!("/ws/stats?ticket={}", ticket.expose());
    assert_eq!(server.try_open(&target, "").0, 101);
    assert_eq!(server.try_open(&target, "").0, 401, "a ticket opens once");
    let both = format!("{target}&token={}", token.expose());
    let (status, answer) = server.try_open(&both, "");
    assert_eq!(status, 400);
    safe(&answer);
}

#[test]
fn wrong_tokens_and_tickets_lock_the_client_out_p8() {
    let server = Server::start(quick());
    for _ in 0..6 {
        let _ = server.try_open("/ws/stats/as/203.0.113.9?token=wrong", "");
    }
    for target in [
        "/ws/stats/as/203.0.113.9?ticket=wrong".to_owned(),
        server.with_token("/ws/stats/as/203.0.113.9"),
    ] {
        let (status, answer) = server.try_open(&target, "");
        assert_eq!(status, 429, "{answer}");
        assert!(answer.contains("\r\nRetry-After: "));
        safe(&answer);
    }
    // P9: without a token there is nothing to count; and nobody else is locked out.
    assert_eq!(server.try_open("/ws/stats/as/203.0.113.9", "").0, 401);
    assert_eq!(server.try_open(&server.with_token("/ws/stats/as/203.0.113.10"), "").0, 101);
}

#[test]
fn only_our_own_pages_may_connect_p23() {
    let server = Server::start(quick());
    let (token, address) = (server.with_token("/ws/stats"), server.address);
    let port = address.port();
    for own in [
        format!("http://{address}"),
        format!("https://{address}"),
        "https://paas.example".to_owned(),
        "HTTPS://PAAS.example".to_owned(),
    ] {
        assert_eq!(server.try_open(&token, &format!("Origin: {own}\r\n")).0, 101, "{own}");
    }
    for other in [
        "https://evil.example".to_owned(),
        "http://paas.example".to_owned(),
        "https://paas.example.evil.example".to_owned(),
        format!("http://{address}.evil.example"),
        format!("http://127.0.0.1:{}", port ^ 1),
        format!("ftp://{address}"),
        "null".to_owned(),
        String::new(),
    ] {
        let (status, answer) = server.try_open(&token, &format!("Origin: {other}\r\n"));
        assert_eq!(status, 403, "{other}");
        safe(&answer);
        // It is judged before the token, so a page cannot lock its visitor out.
        let wrong = server.try_open("/ws/stats?token=wrong", &format!("Origin: {other}\r\n"));
        assert_eq!(wrong.0, 403);
    }
    let two = format!("Origin: http://{address}\r\nOrigin: http://{address}\r\n");
    assert_eq!(server.try_open(&token, &two).0, 403);
    assert!(server.auth.lockouts().is_empty());
}

#[test]
fn the_port_that_a_scheme_implies_makes_no_other_origin() {
    let server = Server::start(quick());
    let target = server.with_token("/ws/stats");
    let usual = server.usual().replace(&server.address.to_string(), "paas.test:443");
    for (origin, status) in [("https://paas.test", "101"), ("http://paas.test", "403")] {
        let (_, answer) = server.request(&target, &format!("{usual}Origin: {origin}\r\n"));
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{origin}: {answer}");
    }
}

#[test]
fn only_the_owner_learns_which_paths_there_are() {
    let server = Server::start(quick());
    let (deploy, app) = (server.deploy(1), server.app(2));
    let there =
        ["/ws/stats".to_owned(), format!("/ws/deploys/{deploy}"), format!("/ws/apps/{app}/log")];
    let not_there = [
        format!("/ws/deploys/{}", DeployId::from_random([9; 10])),
        format!("/ws/apps/{}/log", AppId::from_random([9; 10])),
        format!("/ws/apps/{app}"),
        format!("/ws/deploys/{deploy}/"),
        "/ws/deploys/../stats".to_owned(),
        "/ws".to_owned(),
        "/".to_owned(),
        "/ws/stats/".to_owned(),
        "/ws/st%61ts".to_owned(),
    ];
    for path in &there {
        assert_eq!(server.try_open(path, "").0, 401);
        assert_eq!(server.try_open(&server.with_token(path), "").0, 101);
    }
    for path in &not_there {
        assert_eq!(server.try_open(path, "").0, 401, "{path}");
        let (status, answer) = server.try_open(&server.with_token(path), "");
        assert_eq!(status, 404, "{path}");
        safe(&answer);
    }
}

#[test]
fn a_handshake_must_be_one() {
    let server = Server::start(quick());
    let (target, usual) = (server.with_token("/ws/stats"), server.usual());
    for (old, new, status) in [
        ("Sec-WebSocket-Version: 13\r\n", "", "426"),
        ("Sec-WebSocket-Version: 13", "Sec-WebSocket-Version: 8", "426"),
        ("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZQ==", "400"),
        ("dGhlIHNhbXBsZSBub25jZQ==", "not base64!", "400"),
        ("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", "", "400"),
    ] {
        let (mut stream, mut answer) = server.request(&target, &usual.replace(old, new));
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{new}: {answer}");
        assert!(status != "426" || answer.contains("\r\nUpgrade: websocket\r\n"));
        stream.read_to_string(&mut answer).unwrap();
        safe(&answer);
    }
    let twice = format!("{usual}Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n");
    assert!(server.request(&target, &twice).1.starts_with("HTTP/1.1 400"));
}

#[test]
fn there_are_only_so_many_sessions_and_places_become_free_again() {
    let server = Server::start(LiveLimits { sessions: 5, per_client: 3, ..quick() });
    let open = |client: &str| {
        let target = server.with_token(&format!("/ws/stats/as/{client}"));
        server.request(&target, &server.usual())
    };
    let mut first: Vec<_> = (0..3).map(|_| open("2001:db8::1")).collect();
    assert!(first.iter().all(|(_, answer)| answer.starts_with("HTTP/1.1 101")));
    let (mut stream, mut answer) = open("2001:db8::ffff");
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 429") && answer.contains("Retry-After: "), "{answer}");
    safe(&answer);
    let second: Vec<_> = (0..2).map(|_| open("192.0.2.7")).collect();
    assert!(second.iter().all(|(_, answer)| answer.starts_with("HTTP/1.1 101")));
    let (mut stream, mut answer) = open("192.0.2.8");
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    safe(&answer);
    server.expect_sessions(5);
    first.pop();
    server.expect_sessions(4);
    assert!(open("192.0.2.8").1.starts_with("HTTP/1.1 101"));
}
