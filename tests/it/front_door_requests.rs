//! The front door: what a request must look like, and what each other one gets (P22).

use crate::harness::front::{refused, with};
use crate::harness::{RawConn, Server};
use serde_json::json;

#[test]
fn a_head_that_is_too_large_is_refused() {
    let server = Server::start();
    refused(&server, with(&format!("X-Long: {}\r\n", "a".repeat(16 * 1024))), &[431]);
    refused(&server, with(&"X: y\r\n".repeat(64)), &[431]);
    refused(&server, format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(8 * 1024)), &[414]);
    refused(
        &server,
        format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(20_000)),
        &[414, 431],
    );
    // And what is just small enough is not.
    let mut connection = RawConn::to(server.address());
    connection.send(with(&"X: y\r\n".repeat(62))).answer().expect(200);
    connection.send(with(&format!("X: {}\r\n", "a".repeat(15_000)))).answer().expect(200);
    let long = format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(8000));
    connection.send(long).answer().expect(404);
}

#[test]
fn what_is_not_http_1_is_refused() {
    let server = Server::start();
    let cases: &[&[u8]] = &[
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET / HTTP/3.0\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.2x\r\nHost: x\r\n\r\n",
        b"GET / HTTP/0.9\r\nHost: x\r\n\r\n",
        b"GET /\r\n\r\n",
        b"GET / http/1.1\r\nHost: x\r\n\r\n",
        b"GET  / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1 \r\nHost: x\r\n\r\n",
        b" GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"G\xc3\x84T / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"G(T / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /\x01 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x00\x00\x00\x00\r\n\r\n",
    ];
    for case in cases {
        refused(&server, case, &[400, 505]);
    }
}

#[test]
fn bytes_that_two_readers_could_understand_differently_are_refused() {
    let server = Server::start();
    let cases: &[&[u8]] = &[
        b"GET /healthz HTTP/1.1\nHost: x\n\n",
        b"GET /healthz HTTP/1.1\r\nHost: x\nX: y\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: y\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: a\rb\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: a\r\n b\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: a\r\n\tb\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\n Host: x\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost : x\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length : 0\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: a\x00b\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nX\x00: ab\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: a\x7fb\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nno colon\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\n: empty\r\n\r\n",
    ];
    for case in cases {
        refused(&server, case, &[400]);
    }
}

#[test]
fn a_content_length_that_is_no_plain_number_is_refused() {
    let server = Server::start();
    for lines in [
        "Content-Length: 1\r\nContent-Length: 1",
        "Content-Length: 1\r\nContent-Length: 2",
        "Content-Length: 1, 1",
        "Content-Length: one",
        "Content-Length: -1",
        "Content-Length: +1",
        "Content-Length: 0x1",
        "Content-Length: 1.0",
        "Content-Length: 1 1",
        "Content-Length:",
        "Content-Length: 00000000000000000001",
        "Content-Length: 99999999999999999999",
        "Content-Length: 18446744073709551617",
    ] {
        let head = format!("POST /healthz HTTP/1.1\r\nHost: x\r\n{lines}\r\n\r\n");
        refused(&server, format!("{head}aGET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"), &[400]);
    }
}

#[test]
fn a_body_of_a_mebibyte_is_taken_and_one_byte_more_is_not() {
    let server = Server::start();
    let mut owner = server.owner();
    let most = vec![b' '; 1024 * 1024];
    let answer = owner.request("POST", "/api/apps", Some(&most));
    assert_eq!(answer.status, 400, "{}", answer.text());
    let more = vec![b' '; 1024 * 1024 + 1];
    assert_eq!(owner.request("POST", "/api/apps", Some(&more)).status, 413);
}

#[test]
fn expect_100_continue_gets_its_answer_once_the_head_was_accepted() {
    let server = Server::start();
    let token = server.token();
    let head = |lines: &str, length: usize| {
        format!(
            "POST /api/apps HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n{lines}\r\nContent-Length: {length}\r\n\r\n"
        )
    };
    let body = json!({"name": "a", "gitRepo": "https://git.example.com/a.git"}).to_string();
    let mut connection = RawConn::to(server.address());
    connection.send(head("Expect: 100-continue", body.len()));
    assert_eq!(connection.answer().status, 100);
    connection.send(&body).answer().expect(201);
    // The body may come without waiting too.
    let body = body.replace("\"a\"", "\"b\"");
    connection.send(head("expect: 100-Continue", body.len()) + &body);
    let first = connection.answer();
    let last = if first.status == 100 { connection.answer() } else { first };
    last.expect(201);
    refused(&server, head("Expect: 100-continue", 2_000_000), &[413]);
    refused(&server, head("Expect: 100-continue\r\nContent-Length: 1", 1), &[400]);
    refused(&server, head("Expect: 200-ok", 1), &[417]);
    refused(&server, head("Expect: 100-continue, x", 1), &[417]);
}

#[test]
fn http_1_1_needs_exactly_one_host() {
    let server = Server::start();
    refused(&server, "GET /healthz HTTP/1.1\r\n\r\n", &[400]);
    refused(&server, with("Host: x\r\n"), &[400]);
    refused(&server, with("host: y\r\n"), &[400]);
    refused(&server, "GET /healthz HTTP/1.1\r\nHost: a b\r\n\r\n", &[400]);
    let mut connection = RawConn::to(server.address());
    connection.send("GET /healthz HTTP/1.0\r\n\r\n").answer().expect(200);
}

#[test]
fn a_request_has_one_authorization_at_most() {
    let server = Server::start();
    let right = format!("Authorization: Bearer {}\r\n", server.token());
    for lines in [
        format!("{right}Authorization: Bearer wrong\r\n"),
        format!("authorization: Bearer wrong\r\n{right}"),
        format!("{right}{right}"),
        format!("{right}Authorization:\r\n"),
    ] {
        let request = format!("GET /api/session HTTP/1.1\r\nHost: x\r\n{lines}\r\n");
        let answer = refused(&server, request, &[400]);
        assert!(answer.message().contains("Authorization"), "{}", answer.text());
    }
    let mut connection = RawConn::to(server.address());
    let request = format!("GET /api/session HTTP/1.1\r\nHost: x\r\n{right}\r\n");
    connection.send(request).answer().expect(200);
}

#[test]
fn targets_and_methods_for_proxies_are_refused() {
    let server = Server::start();
    for line in [
        "GET http://x/healthz HTTP/1.1",
        "GET https://example.com/ HTTP/1.1",
        "OPTIONS * HTTP/1.1",
        "GET * HTTP/1.1",
        "CONNECT example.com:443 HTTP/1.1",
        "CONNECT / HTTP/1.1",
        "TRACE / HTTP/1.1",
        "TRACE /healthz HTTP/1.1",
        "GET healthz HTTP/1.1",
        "GET ?x HTTP/1.1",
    ] {
        let answer = refused(&server, format!("{line}\r\nHost: x\r\n\r\n"), &[400, 405]);
        if answer.status == 405 {
            assert!(!answer.header("Allow").unwrap().contains("TRACE"));
        }
    }
}

#[test]
fn a_wrong_method_gets_405_with_the_right_ones() {
    let server = Server::start();
    let mut owner = server.owner();
    for (method, path, allowed) in [
        ("PUT", "/api/apps", "GET, POST"),
        ("POST", "/api/session", "GET"),
        ("POST", "/healthz", "GET"),
        ("DELETE", "/", "GET"),
    ] {
        let answer = owner.request(method, path, None).expect(405);
        assert_eq!(answer.header("Allow"), Some(allowed), "{method} {path}");
    }
    for method in ["BREW", "OPTIONS", "get"] {
        let status = owner.request(method, "/api/apps", None).status;
        assert!(matches!(status, 400 | 405 | 501), "{method}: {status}");
    }
}

#[test]
fn pipelined_requests_are_answered_in_order_one_at_a_time() {
    let server = Server::start();
    let token = server.token();
    let mut all = String::new();
    for number in 0..50 {
        let path = if number % 2 == 0 { "/healthz".to_owned() } else { format!("/no/{number}") };
        all.push_str(&format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"));
    }
    all.push_str("POST /api/ws-ticket HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ");
    all.push_str(&format!("{token}\r\nContent-Length: 2\r\n\r\n{{}}"));
    all.push_str("GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    all.push_str("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n");
    let mut connection = RawConn::to(server.address());
    let statuses: Vec<u16> = connection.send(all).answers().iter().map(|a| a.status).collect();
    let mut expected: Vec<u16> = (0..50).map(|n| if n % 2 == 0 { 200 } else { 404 }).collect();
    expected.extend([200, 200]);
    assert_eq!(statuses, expected);
}

#[test]
fn http_1_0_is_answered_and_closed_unless_it_asks_to_stay() {
    let server = Server::start();
    let mut connection = RawConn::to(server.address());
    let answers = connection.send("GET /healthz HTTP/1.0\r\n\r\n").answers();
    assert_eq!(answers.iter().map(|a| a.status).collect::<Vec<_>>(), [200]);
    let mut kept = RawConn::to(server.address());
    let stay = "GET /healthz HTTP/1.0\r\nConnection: keep-alive\r\n\r\n";
    let answer = kept.send(stay).answer().expect(200);
    assert_eq!(answer.header("Connection").map(str::to_ascii_lowercase), Some("keep-alive".into()));
    kept.send(stay).answer().expect(200);
}

#[test]
fn head_is_answered_like_get_without_a_body() {
    let server = Server::start();
    let mut owner = server.owner();
    let get = owner.get("/api/apps").expect(200);
    let head = owner.request("HEAD", "/api/apps", None).expect(200);
    assert_eq!(head.header("Content-Length"), get.header("Content-Length"));
    // Nothing of a body came: the next answer on this connection is whole.
    owner.get("/healthz").expect(200);
}

#[test]
fn a_client_cannot_send_what_the_gate_says_to_the_handler() {
    let server = Server::start();
    let spoof = [
        ("X-Gate-Client", "192.0.2.1"),
        ("x-gate-client", ""),
        ("X-Gate-Number", "0"),
        ("x-gate-number", ""),
    ];
    for (name, value) in spoof {
        let answer = server.stranger().with(name, value).get("/api/session").expect(401);
        assert_eq!(answer.header("Strict-Transport-Security"), None);
        assert!(answer.headers.iter().all(|(n, _)| !n.to_ascii_lowercase().starts_with("x-gate")));
    }
    // Nor make a connection's name drop what the gate added.
    let mut guesser = server.stranger().bearer("guess").with("Connection", "x-gate-client");
    for _ in 0..5 {
        guesser.get("/api/session").expect(401);
    }
    server.owner().get("/api/session").expect(429);
}
