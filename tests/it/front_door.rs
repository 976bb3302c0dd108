//! The front door: what a client without a token can send, row by row, on raw sockets (P22).

use crate::harness::front::{Watch, many_clients, refused, request, with};
use crate::harness::{RawConn, Server, Setup, until};
use std::time::{Duration, Instant};

#[test]
fn a_body_that_is_announced_as_huge_is_refused_at_once_and_allocates_nothing() {
    let server = Server::start();
    let watch = Watch::over(&server);
    for length in ["99999999999999", "1048577", "9999999999999999999"] {
        let begin = Instant::now();
        let head =
            format!("POST /api/apps HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n");
        refused(&server, head, &[413]);
        // Its deadline would be 30 s.
        assert!(begin.elapsed() < Duration::from_secs(15), "waited for the body");
    }
    watch.holds();
}

#[test]
fn a_body_that_never_comes_keeps_nobody_waiting_and_ends_after_30_s() {
    let server = Server::start();
    let watch = Watch::over(&server);
    let begin = Instant::now();
    let mut silent = RawConn::to(server.address());
    silent.send("POST /api/apps HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n\r\n{");
    let mut dripping = RawConn::to(server.address());
    dripping.send("POST /api/apps HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n\r\n");
    until("the drip is cut off", Duration::from_secs(50), || {
        watch.holds();
        crate::harness::wait::let_pass(Duration::from_millis(200));
        dripping.try_send(b" ").is_err() || begin.elapsed() > Duration::from_secs(33)
    });
    for connection in [&mut silent, &mut dripping] {
        assert_eq!(connection.answer().status, 408);
        connection.expect_closed();
    }
    let took = begin.elapsed().as_secs_f64();
    assert!((29.0..50.0).contains(&took), "{took} s");
}

#[test]
fn a_head_that_is_too_slow_ends_after_10_s_however_it_drips() {
    let server = Server::start();
    let watch = Watch::over(&server);
    let begin = Instant::now();
    let mut silent = RawConn::to(server.address());
    silent.send("GET /healthz HT");
    let mut dripping = RawConn::to(server.address());
    dripping.send("GET /healthz HTTP/1.1\r\nHost: x\r\nX-Slow: ");
    until("the drip is cut off", Duration::from_secs(30), || {
        watch.holds();
        crate::harness::wait::let_pass(Duration::from_millis(100));
        dripping.try_send(b"a").is_err() || begin.elapsed() > Duration::from_secs(11)
    });
    for connection in [&mut silent, &mut dripping] {
        assert_eq!(connection.answer().status, 408);
        connection.expect_closed();
    }
    let took = begin.elapsed().as_secs_f64();
    assert!((9.0..28.0).contains(&took), "{took} s");
}

#[test]
fn a_header_line_that_never_ends_costs_16_kib_and_no_more() {
    let server = Server::start();
    let watch = Watch::over(&server);
    let mut connection = RawConn::to(server.address());
    connection.send("GET /healthz HTTP/1.1\r\nHost: x\r\nX-Endless: ");
    let begin = Instant::now();
    while connection.try_send(&[b'a'; 16 * 1024]).is_ok() {
        assert!(begin.elapsed() < Duration::from_secs(30), "it reads on and on");
    }
    watch.holds();
    let endless = format!("GET /healthz HTTP/1.1\r\nHost: x\r\nX: {}", "a".repeat(17 * 1024));
    refused(&server, endless, &[431]);
}

#[test]
fn idle_connections_at_the_usual_limit_of_files_stop_nobody() {
    let server = Setup::new().shell("ulimit -n 1024").start();
    let watch = Watch::over(&server);
    let crowd = many_clients(&server, 700, b"");
    watch.holds();
    let threads = watch.threads();
    assert!(threads < 700, "{threads} threads");
    drop(crowd);
    watch.goes_back();
}

#[test]
fn five_thousand_idle_connections_cost_few_threads() {
    crate::harness::front::allow_many_files();
    let server = Setup::new().shell("ulimit -n $(ulimit -Hn)").start();
    let watch = Watch::over(&server);
    let crowd = many_clients(&server, 5000, b"GET /healthz HTT");
    watch.holds();
    let threads = watch.threads();
    assert!(threads < 600, "{threads} threads");
    drop(crowd);
    watch.goes_back();
}

#[test]
fn running_out_of_files_does_not_end_the_accepting() {
    let server = Setup::new().shell("ulimit -n 64").start();
    let crowd = many_clients(&server, 300, b"");
    drop(crowd);
    until("it answers again", Duration::from_secs(60), || {
        server.stranger().try_request("GET", "/healthz", None).is_ok_and(|a| a.status == 200)
    });
    server.owner().get("/api/session").expect(200);
}

#[test]
fn a_flood_of_one_client_leaves_a_signed_in_owner_his_connection() {
    let server = Server::start();
    let mut owner = server.owner().coming_from([127, 0, 0, 200]);
    let mut kept = RawConn::to(server.address());
    let ask = request(&server.token());
    kept.send(&ask).answer().expect(200);
    owner.get("/api/apps").expect(200);
    let _crowd = many_clients(&server, 1500, b"");
    kept.send(&ask).answer().expect(200);
    owner.get("/api/apps").expect(200);
}

#[test]
fn one_client_gets_at_most_64_connections() {
    let server = Server::start();
    let address = [127, 0, 0, 33];
    let open = || {
        let limit = Duration::from_secs(20);
        RawConn::open(server.address(), Some(address.into()), limit).unwrap()
    };
    let ask = request(&server.token());
    let mut proved: Vec<RawConn> = (0..64).map(|_| open()).collect();
    for connection in &mut proved {
        connection.send(&ask).answer().expect(200);
    }
    let mut one_more = open();
    let _sent = one_more.try_send(ask.as_bytes());
    assert!(one_more.try_answer(false).map_or(true, |a| a.status == 503));
    for connection in &mut proved {
        connection.send(&ask).answer().expect(200);
    }
    // Somebody else comes in.
    server.owner().get("/api/session").expect(200);
    proved.pop();
    until("a place is free again", Duration::from_secs(60), || {
        let mut next = open();
        next.try_send(ask.as_bytes()).is_ok()
            && next.try_answer(false).is_ok_and(|a| a.status == 200)
    });
}

#[test]
fn a_trusted_proxy_gets_more_than_64_connections() {
    let server = Setup::new().trust_proxy().start();
    let mut all: Vec<RawConn> = (0..100).map(|_| RawConn::to(server.address())).collect();
    for connection in &mut all {
        connection.send(with("")).answer().expect(200);
    }
    for connection in &mut all {
        connection.send(with("")).answer().expect(200);
    }
}

#[test]
fn kept_connections_are_answered_in_a_moment_and_all_at_once() {
    let server = Server::start();
    let ask = request(&server.token());
    let mut all: Vec<RawConn> = (0..32).map(|_| RawConn::to(server.address())).collect();
    for connection in &mut all {
        connection.send(&ask);
    }
    for connection in &mut all {
        connection.answer().expect(200);
    }
    let mut times: Vec<Duration> = (0..101)
        .map(|_| {
            let begin = Instant::now();
            all[0].send(&ask).answer().expect(200);
            begin.elapsed()
        })
        .collect();
    times.sort();
    // Nagle against delayed ACK would make nearly every one wait for 40 ms; a busy machine delays some.
    assert!(times[25] < Duration::from_millis(40), "{times:?}");
}

#[test]
fn two_ways_to_say_how_long_a_body_is_get_one_answer() {
    let server = Server::start();
    let smuggled = "GET /healthz HTTP/1.1\r\nHost: smuggled\r\n\r\n";
    for lines in [
        "Content-Length: 4\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 4",
        "Transfer-Encoding: identity",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
        "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked",
        "transfer-encoding:\tchunked",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: \u{b}chunked",
        "Transfer-Encoding:",
    ] {
        let head = format!("POST /healthz HTTP/1.1\r\nHost: x\r\n{lines}\r\n\r\n");
        refused(&server, format!("{head}0\r\n\r\n{smuggled}"), &[400, 411]);
    }
    let plain = "POST /healthz HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    refused(&server, plain, &[411]);
}

#[test]
fn seven_hundred_resets_cause_no_panic() {
    let server = Server::start();
    let watch = Watch::over(&server);
    let ask = request(&server.token());
    for number in 0..700 {
        let mut connection = RawConn::to(server.address());
        let cut = number % ask.len();
        let _sent = connection.try_send(&ask.as_bytes()[..cut]);
        if number % 3 == 0 {
            let _sent = connection.try_send(&ask.as_bytes()[cut..]);
        }
        connection.reset();
    }
    watch.holds();
    watch.goes_back();
    assert!(!server.log().contains("panicked"), "{}", server.log());
}

#[test]
fn a_client_that_does_not_read_is_closed_after_10_s() {
    let server = Server::start();
    let watch = Watch::over(&server);
    let token = server.token();
    let ask = format!(
        "GET /api/openapi.json HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n"
    );
    let mut lazy = RawConn::to(server.address());
    lazy.shrink_receive_buffer();
    let batch = ask.repeat(50);
    let begin = Instant::now();
    // The answers fill every buffer on the way, then ours; the server stops reading, and at last it closes.
    while lazy.try_send(batch.as_bytes()).is_ok() {
        assert!(begin.elapsed() < Duration::from_secs(40), "still open");
    }
    let took = begin.elapsed().as_secs_f64();
    assert!((9.0..40.0).contains(&took), "{took} s");
    watch.holds();
}
