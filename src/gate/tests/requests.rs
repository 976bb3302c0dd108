//! What each kind of bad request gets (P22).

use super::*;

const HOST: &str = "Host: a\r\n";

/// Short deadlines; everything else as usual.
fn hasty() -> GateLimits {
    let soon = Duration::from_millis(150);
    GateLimits { head: soon, body: soon, idle: soon, stall: soon, ..GateLimits::DEFAULT }
}

/// Sends one request that must be refused: one answer, JSON, then the end.
fn refused(house: &House, request: &str, status: u16) {
    let mut caller = house.connect();
    let answer = caller.ask(request);
    assert_eq!(answer.status, status, "{request:.200}");
    assert!(answer.has("Connection: close") && answer.has("Cache-Control: no-store"));
    assert!(answer.has("X-Content-Type-Options: nosniff"));
    let json: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    assert!(json["error"]["code"].is_string() && json["error"]["message"].is_string());
    assert!(caller.is_over(), "{request:.200}");
}

#[test]
fn an_oversized_head_or_target_is_refused_with_431_or_414() {
    let house = House::new();
    let get = |fields: &str| format!("GET /hello HTTP/1.1\r\n{HOST}{fields}\r\n");
    refused(&house, &get(&format!("A: {}\r\n", "b".repeat(17_000))), 431);
    refused(&house, &get(&"A: b\r\n".repeat(64)), 431);
    let target = "a".repeat(8200);
    refused(&house, &format!("GET /{target} HTTP/1.1\r\n{HOST}\r\n"), 414);
    let mut caller = house.connect();
    let answer = caller.ask(&get(&format!("A: {}\r\n", "b".repeat(16_000))));
    assert_eq!(answer.status, 200);
    caller.hello();
}

#[test]
fn what_is_not_plain_http_1_is_refused_with_400() {
    let house = House::new();
    for request in [
        "GET /hello HTTP/1.1\nHost: a\n\n",
        "GET /hello HTTP/1.1\r\nHost: a\r\nA: b\r\n c\r\n\r\n",
        "GET /hello HTTP/1.1\r\nHost : a\r\n\r\n",
        "GET /hello HTTP/1.1\r\nHost: a\r\nA: \0\r\n\r\n",
        "GET /hello HTTP/3.0\r\nHost: a\r\n\r\n",
        "GET /hello HTTP/1.1\r\nHost: a\r\nA: \u{7f}\r\n\r\n",
        "GET /hello HTTP/1.1\r\n\r\n",
        "GET /hello HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
        "GET http://a/hello HTTP/1.1\r\nHost: a\r\n\r\n",
        "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
        "\u{16}\u{3}\u{1}\u{1}",
    ] {
        refused(&house, request, 400);
    }
    for method in ["TRACE", "CONNECT"] {
        refused(&house, &format!("{method} /hello HTTP/1.1\r\n{HOST}\r\n"), 405);
    }
}

#[test]
fn an_unclear_length_is_refused_with_400_and_a_large_one_with_413_unread() {
    let house = House::new();
    let post = |fields: &str| format!("POST /echo HTTP/1.1\r\n{HOST}{fields}\r\n");
    for fields in [
        "Content-Length: 5\r\nContent-Length: 5\r\n",
        "Content-Length: five\r\n",
        "Content-Length: -5\r\n",
        "Content-Length: +5\r\n",
        "Content-Length: 00000000000000000005\r\n",
    ] {
        refused(&house, &post(fields), 400);
    }
    refused(&house, &post("Content-Length: 1048577\r\n"), 413);
    refused(&house, &post("Content-Length: 99999999999999\r\n"), 413);
    refused(&house, &post("Transfer-Encoding: chunked\r\n"), 411);
    refused(&house, &post("Expect: the unexpected\r\n"), 417);
}

#[test]
fn a_client_that_is_still_sending_can_read_why_it_was_refused() {
    let house = House::new();
    let mut caller = house.connect();
    let length = 20_000_000;
    caller.send(format!("POST /echo HTTP/1.1\r\n{HOST}Content-Length: {length}\r\n\r\n"));
    // A client that does not look before it has sent everything.
    let piece = vec![b'x'; 100_000];
    for _ in 0..length / piece.len() {
        caller.send(&piece);
    }
    assert_eq!(caller.answer().status, 413);
    assert!(caller.is_over());
}

#[test]
fn a_body_is_asked_for_only_once_the_head_was_accepted() {
    let house = House::new();
    let mut caller = house.connect();
    let head = |n: usize| {
        format!("POST /echo HTTP/1.1\r\n{HOST}Expect: 100-continue\r\nContent-Length: {n}\r\n\r\n")
    };
    let interim = caller.ask(&head(5));
    assert_eq!((interim.status, interim.body.len()), (100, 0));
    let answer = caller.ask("hello");
    assert!(answer.status == 200 && answer.text().ends_with("\n\nhello"));
    // Nobody asks for what is there already, or for nothing.
    assert!(caller.ask(&format!("{}world", head(5))).text().ends_with("\n\nworld"));
    assert_eq!(caller.ask(&head(0)).status, 200);
    refused(&house, &head(2_000_000), 413);
}

#[test]
fn a_head_or_body_that_drips_gets_408_at_the_deadline() {
    let house = House::with(hasty());
    for opening in [
        format!("GET /hello HTTP/1.1\r\n{HOST}A: "),
        format!("POST /echo HTTP/1.1\r\n{HOST}Content-Length: 1000000\r\n\r\n"),
    ] {
        let mut caller = house.connect();
        caller.send(&opening);
        let start = Instant::now();
        let mut writer = caller.stream.try_clone().unwrap();
        // Each drop would renew a timeout that counts from the last byte.
        let dripping = thread::spawn(move || {
            while writer.write_all(b"x").is_ok() {
                thread::park_timeout(Duration::from_millis(2));
            }
        });
        assert_eq!(caller.answer().status, 408);
        assert!(start.elapsed() >= Duration::from_millis(150));
        caller.stream.shutdown(std::net::Shutdown::Both).unwrap();
        dripping.join().unwrap();
    }
    // Silence in the middle is no better.
    refused(&house, "GET /hello HTTP/1.1\r\nHo", 408);
    refused(&house, &format!("POST /e HTTP/1.1\r\n{HOST}Content-Length: 5\r\n\r\nab"), 408);
}

#[test]
fn a_connection_without_a_request_is_closed_without_a_word() {
    let house = House::with(hasty());
    assert!(house.connect().is_over());
    let mut kept = house.connect();
    kept.hello();
    assert!(kept.is_over());
}

#[test]
fn pipelined_requests_are_answered_in_order_one_at_a_time() {
    let house = House::new();
    let mut caller = house.connect();
    let mut requests = String::new();
    for n in 0..50 {
        requests += &match n % 3 {
            0 => format!("GET /echo?{n} HTTP/1.1\r\n{HOST}\r\n"),
            1 => format!("POST /echo?{n} HTTP/1.1\r\n{HOST}Content-Length: 3\r\n\r\nabc"),
            _ => format!("\r\nGET /echo?{n} HTTP/1.1\r\n{HOST}\r\n"),
        };
    }
    // Cut at places that suit nobody.
    for piece in requests.as_bytes().chunks(37) {
        caller.send(piece);
    }
    for n in 0..50 {
        let answer = caller.answer();
        assert!(answer.text().contains(&format!("/echo?{n}\n")), "{n}: {}", answer.text());
        assert_eq!(answer.text().ends_with("abc"), n % 3 == 1);
    }
    // What follows a request that closes is not looked at.
    caller.send(format!(
        "GET /hello HTTP/1.1\r\n{HOST}Connection: close\r\n\r\nGET /hello HTTP/1.1\r\n{HOST}\r\n"
    ));
    assert!(caller.answer().has("Connection: close"));
    assert!(caller.is_over());
}

#[test]
fn http_1_0_is_answered_and_closed_unless_it_asks_to_stay() {
    let house = House::new();
    let mut caller = house.connect();
    let answer = caller.ask("GET /hello HTTP/1.0\r\n\r\n");
    assert!(answer.text() == "hello" && answer.has("Connection: close") && caller.is_over());
    let mut caller = house.connect();
    for _ in 0..3 {
        let answer = caller.ask("GET /hello HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n");
        assert!(answer.text() == "hello" && answer.has("Connection: keep-alive"));
    }
}

#[test]
fn a_client_that_does_not_read_its_answer_is_closed() {
    let house = House::with(hasty());
    let mut caller = house.connect();
    caller.send(format!("GET /big?30000000 HTTP/1.1\r\n{HOST}\r\n"));
    until("the connection is given up", || {
        house.gate().seats.count() == 0 && house.gate().seats.held() == 0
    });
    house.owner_is_served();
}
