//! What the gate passes on, inwards as well as outwards.

use super::*;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

#[test]
fn the_inside_sees_the_client_under_a_name_that_no_client_can_send() {
    let house = House::new();
    let request = "POST /echo HTTP/1.1\r\nHost: a\r\nX-Gate-Client: 10.0.0.1\r\nX-GATE-Secure: 1\r\n\
        X-Forwarded-For: 192.0.2.5\r\nX-Forwarded-Proto: https\r\nConnection: x-own\r\nX-Own: 1\r\n\
        TE: trailers, chunked\r\nContent-Length: 2\r\n\r\nhi";
    let seen = house.connect().ask(request);
    let (head, body) = seen.text().split_once("\n\n").unwrap();
    assert_eq!(body, "hi");
    let named: Vec<_> =
        head.lines().filter(|l| l.to_ascii_lowercase().starts_with("x-gate")).collect();
    assert_eq!(named[0], "X-Gate-Client: 127.0.0.1");
    assert!(named.len() == 3 && named[1].starts_with("X-Gate-Number: "), "{named:?}");
    assert_eq!(named[2], "X-Gate-Way: plain unheeded");
    assert!(!head.contains("X-Own") && !head.contains("TE: "));
    // Behind a trusted proxy it is whom the proxy names.
    let proxied = house.connect_from(u16::from_be_bytes([9, 9])).ask(request);
    assert!(proxied.text().contains("X-Gate-Client: 192.0.2.5\n"));
    assert!(proxied.text().contains("X-Gate-Way: \n"), "{}", proxied.text());
    let hsts = "Strict-Transport-Security: max-age=31536000";
    assert!(proxied.has(hsts) && !seen.has(hsts), "{}", proxied.head);
}

#[test]
fn a_proxy_of_our_own_comes_over_its_socket_and_is_believed() {
    let house = House::with(GateLimits { per_client: 1, ..GateLimits::DEFAULT });
    let path = house.dir.path().join("proxy.sock");
    let mut callers: Vec<_> = (0..3)
        .map(|_| Caller::over(OwnedFd::from(UnixStream::connect(&path).unwrap()).into()))
        .collect();
    for (n, caller) in callers.iter_mut().enumerate() {
        let answer = caller.ask(&format!(
            "POST /echo HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 192.0.2.{n}\r\n\
             X-Forwarded-Proto: https\r\nContent-Length: 2\r\n\r\nhi"
        ));
        let named = format!("X-Gate-Client: 192.0.2.{n}\n");
        assert!(answer.text().contains(&named), "{}", answer.text());
        assert!(answer.has("Strict-Transport-Security: max-age=31536000"), "{}", answer.head);
        assert_eq!(
            caller.ask("GET /big?1000000 HTTP/1.1\r\nHost: a\r\n\r\n").body.len(),
            1_000_000
        );
    }
    // It speaks for many, so one client's share does not bind it.
    callers.iter_mut().for_each(Caller::hello);
}

#[test]
fn a_body_that_takes_its_time_to_make_keeps_nobody_waiting() {
    let house = House::new();
    let mut slow = house.connect();
    slow.send("GET /made HTTP/1.1\r\nHost: a\r\n\r\nHEAD /made HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(house.arrival(), "made");
    house.connect().hello();
    house.make.send(()).unwrap();
    let answer = slow.answer();
    assert!(answer.status == 200 && answer.text() == "to measure", "{}", answer.head);
    assert!(!answer.head.contains("X-Gate"), "{}", answer.head);
    house.make.send(()).unwrap();
    assert!(slow.answer_to(true).unwrap().has("Content-Length: 10"));
    slow.hello();
}

#[test]
fn a_connection_comes_back_from_every_detour() {
    let house = House::new();
    std::fs::write(house.dir.path().join("answer"), b"of a file").unwrap();
    let mut caller = house.connect();
    for _ in 0..20 {
        caller.send(
            "POST /echo HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n",
        );
        assert_eq!(caller.answer().status, 100);
        // The rest of the body, and the next requests with it.
        caller.send(
            "bodyGET /file HTTP/1.1\r\nHost: a\r\n\r\nGET /big?3000000 HTTP/1.1\r\nHost: a\r\n\r\n",
        );
        assert!(caller.answer().text().ends_with("\n\nbody"));
        assert_eq!(caller.answer().text(), "of a file");
        assert_eq!(caller.answer().body.len(), 3_000_000);
        caller.hello();
    }
    let gate = house.gate();
    assert_eq!(gate.seats.count(), 1);
}

#[test]
fn the_gates_own_marks_and_the_servers_name_do_not_go_out() {
    let house = House::new();
    let mut caller = house.connect();
    let answer = caller.ask(&format!("GET /hello HTTP/1.1\r\nHost: a\r\n{}\r\n", bearer()));
    assert_eq!(answer.text(), "hello");
    let head = answer.head.to_ascii_lowercase();
    assert!(!head.contains("x-gate") && !head.contains("server:"), "{head}");
    assert!(head.contains("\r\ndate: ") && answer.has("Connection: keep-alive"), "{head}");
}

#[test]
fn answers_without_a_body_leave_the_connection_in_step() {
    let house = House::new();
    let mut caller = house.connect();
    for _ in 0..3 {
        caller.send("HEAD /hello HTTP/1.1\r\nHost: a\r\n\r\n");
        let head = caller.answer_to(true).unwrap();
        assert!(head.status == 200 && head.has("Content-Length: 5"));
        let empty = caller.ask("GET /empty HTTP/1.1\r\nHost: a\r\n\r\n");
        assert!(empty.status == 204 && !empty.head.contains("Content-Length"));
        caller.hello();
    }
    // An empty line before it is forgiven, and it is no less a HEAD.
    caller.send("\r\nHEAD /hello HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(caller.answer_to(true).unwrap().has("Content-Length: 5"));
    caller.hello();
    caller.send("HEAD /hello HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    assert_eq!(caller.answer_to(true).unwrap().status, 411);
    assert!(caller.is_over());
}

#[test]
fn a_file_is_streamed_as_the_body() {
    let house = House::new();
    let content: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    std::fs::write(house.dir.path().join("answer"), &content).unwrap();
    let mut caller = house.connect();
    for _ in 0..2 {
        let answer = caller.ask("GET /file HTTP/1.1\r\nHost: a\r\n\r\n");
        assert!(answer.body == content && answer.has("Content-Length: 3000000"));
        assert!(!answer.head.to_ascii_lowercase().contains("x-gate"));
    }
    caller.send("HEAD /file HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(caller.answer_to(true).unwrap().has("Content-Length: 3000000"));
    caller.hello();
    std::fs::remove_file(house.dir.path().join("answer")).unwrap();
    let answer = caller.ask("GET /file HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(answer.status == 500 && answer.has("Connection: close") && caller.is_over());
}

#[test]
fn a_body_of_the_greatest_size_arrives_whole_and_may_be_left_unread() {
    let house = House::new();
    let mut caller = house.connect();
    let body = "y".repeat(1024 * 1024);
    let head = |path: &str| {
        format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body.len())
    };
    let answer = caller.ask(&(head("/echo") + &body));
    assert!(answer.text().ends_with(&format!("\n\n{body}")));
    // The handler answers at length and does not look at the body: neither side may
    // wait for the other.
    let answer = caller.ask(&(head("/big?5000000") + &body));
    assert_eq!(answer.body.len(), 5_000_000);
    caller.hello();
}

#[test]
fn a_handler_that_dropped_the_request_costs_that_request_only() {
    let house = House::new();
    let mut caller = house.connect();
    assert_eq!(caller.ask("GET /dropped HTTP/1.1\r\nHost: a\r\n\r\n").status, 502);
    house.connect().hello();
}
