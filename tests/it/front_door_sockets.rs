//! The front door: WebSocket sessions, which read as well as they write (P22).

use crate::harness::front::Watch;
use crate::harness::{RawConn, Server, Ws, until};
use std::io::{Read, Write};
use std::time::{Duration, Instant};
use tungstenite::Message;

/// Longer than a busy machine makes anything wait.
const SOON: Duration = Duration::from_secs(30);

/// Long before the first ping of a session, and the end that follows an unanswered one.
const LONG_BEFORE: Duration = Duration::from_secs(15);

fn stats(server: &Server) -> String {
    format!("/ws/stats?token={}", server.token())
}

/// Opens a socket by hand and leaves the connection to the test.
fn by_hand(server: &Server) -> RawConn {
    let mut connection = RawConn::to(server.address());
    connection.send(format!(
        "GET {} HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        stats(server),
        server.address()
    ));
    let answer = connection.answer();
    assert_eq!(answer.status, 101, "{answer:?}");
    assert_eq!(answer.header("Sec-WebSocket-Accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    connection
}

/// A client's frame: final, with this operation, masked with zeros.
fn frame(operation: u8, payload: &[u8]) -> Vec<u8> {
    assert!(payload.len() < 126);
    let length = u8::try_from(payload.len()).unwrap();
    let mut bytes = vec![0x80 | operation, 0x80 | length, 0, 0, 0, 0];
    bytes.extend_from_slice(payload);
    bytes
}

#[test]
fn a_session_answers_pings_and_obeys_close() {
    let server = Server::start();
    let mut socket = Ws::at(server.address(), &stats(&server)).open().unwrap();
    for _ in 0..20 {
        assert!(socket.is_alive());
    }
    socket.send(Message::Close(None)).unwrap();
    socket.wait_for_close(SOON);
}

#[test]
fn a_peer_that_vanished_is_dropped_after_its_ping_went_unanswered() {
    let server = Server::start();
    let watch = Watch::over(&server);
    let begin = Instant::now();
    let mut vanished = by_hand(&server);
    let mut steady = Ws::at(server.address(), &stats(&server)).open().unwrap();
    // Read what comes, so that the pipe never fills; answer nothing.
    let seen = std::thread::spawn(move || {
        vanished.drain();
        begin.elapsed()
    });
    until("the vanished peer is dropped", Duration::from_secs(45), || {
        assert!(steady.is_alive(), "a peer that answers was dropped");
        crate::harness::wait::let_pass(Duration::from_millis(200));
        seen.is_finished()
    });
    let took = seen.join().unwrap().as_secs_f64();
    assert!((20.0..36.0).contains(&took), "{took} s");
    steady.close();
    watch.goes_back();
}

#[test]
fn a_bad_or_unmasked_frame_ends_the_session() {
    let server = Server::start();
    let unmasked: &[u8] = b"\x81\x05hello";
    let reserved_bits = &frame(1, b"x")
        .iter()
        .enumerate()
        .map(|(i, b)| if i == 0 { b | 0x70 } else { *b })
        .collect::<Vec<u8>>();
    let unknown_operation = &frame(0xb, b"x");
    let not_utf8 = &frame(1, b"\xff\xfe");
    let long_ping = &[&[0x89, 0xfe, 0, 200, 0, 0, 0, 0][..], &[b'x'; 200]].concat();
    let lonely_continuation = &frame(0, b"x");
    for bytes in
        [unmasked, reserved_bits, unknown_operation, not_utf8, long_ping, lonely_continuation]
    {
        let mut connection = by_hand(&server);
        connection.send(bytes).set_limit(SOON);
        let begin = Instant::now();
        connection.drain();
        assert!(begin.elapsed() < LONG_BEFORE, "{bytes:?} was accepted");
    }
    server.owner().get("/api/session").expect(200);
}

#[test]
fn a_message_over_64_kib_ends_the_session_before_it_is_stored() {
    let server = Server::start();
    let watch = Watch::over(&server);
    let mut socket = Ws::at(server.address(), &stats(&server)).open().unwrap();
    let _gone = socket.send(Message::text("x".repeat(64 * 1024 + 1)));
    socket.wait_for_close(SOON);
    // A frame that only announces a lot is refused at its head.
    let mut announced = by_hand(&server);
    announced.send(b"\x81\xff\x00\x00\x00\x00\x10\x00\x00\x00abcd").set_limit(SOON);
    let begin = Instant::now();
    announced.drain();
    assert!(begin.elapsed() < LONG_BEFORE);
    // Nor do fragments add up to more.
    let mut fragments = by_hand(&server);
    let mut sent = fragments.try_send(
        &frame(1, b"x")
            .iter()
            .enumerate()
            .map(|(i, b)| if i == 0 { b & 0x7f } else { *b })
            .collect::<Vec<u8>>(),
    );
    let piece = frame(0, &[b'x'; 120])
        .iter()
        .enumerate()
        .map(|(i, b)| if i == 0 { b & 0x7f } else { *b })
        .collect::<Vec<u8>>();
    let begin = Instant::now();
    while sent.is_ok() {
        assert!(begin.elapsed() < Duration::from_secs(30), "a message without an end");
        sent = fragments.try_send(&piece.repeat(100));
    }
    watch.holds();
}

#[test]
fn a_peer_that_sends_and_never_reads_is_closed() {
    let server = Server::start();
    let watch = Watch::over(&server);
    let mut greedy = by_hand(&server);
    let pings = frame(9, &[b'p'; 120]).repeat(500);
    let begin = Instant::now();
    while greedy.try_send(&pings).is_ok() {
        assert!(begin.elapsed() < Duration::from_secs(60), "still open");
    }
    watch.holds();
    watch.goes_back();
}

#[test]
fn at_most_64_sessions_and_16_of_one_client() {
    let server = Server::start();
    let watch = Watch::over(&server);
    let open =
        |last: u8| Ws::at(server.address(), &stats(&server)).coming_from([127, 0, 0, last]).open();
    let mut all = Vec::new();
    for client in 1..=4 {
        for number in 0..16 {
            all.push(open(client).unwrap_or_else(|e| panic!("{client} {number}: {e:?}")));
        }
        let refusal = open(client).err().unwrap();
        assert!(matches!(refusal.status, 429 | 503), "{refusal:?}");
        refusal.message();
    }
    let refusal = open(5).err().unwrap();
    assert!(matches!(refusal.status, 429 | 503), "{refusal:?}");
    watch.holds();
    all.pop().unwrap().close();
    until("a place is free again", SOON, || open(5).is_ok());
    drop(all);
    watch.goes_back();
}

#[test]
fn a_handshake_that_is_none_is_refused() {
    let server = Server::start();
    let path = stats(&server);
    let host = server.address();
    let good = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let cases = [
        good.replace("Version: 13", "Version: 8"),
        good.replace("dGhlIHNhbXBsZSBub25jZQ==", "short"),
        good.replace("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", ""),
        good.replace("Upgrade: websocket", "Upgrade: h2c"),
        format!("{good}Content-Length: 5\r\n"),
        format!("{good}Transfer-Encoding: chunked\r\n"),
    ];
    for lines in cases {
        let mut connection = RawConn::to(host);
        connection.send(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n{lines}\r\n"));
        let status = connection.answer().status;
        assert!((400..500).contains(&status), "{lines}: {status}");
    }
    let mut posted = RawConn::to(host);
    posted.send(format!("POST {path} HTTP/1.1\r\nHost: {host}\r\n{good}\r\n"));
    assert!((400..500).contains(&posted.answer().status));
    // Elsewhere there is nothing to upgrade to.
    let mut elsewhere = RawConn::to(host);
    elsewhere.send(format!("GET /api/apps HTTP/1.1\r\nHost: {host}\r\n{good}\r\n"));
    assert_ne!(elsewhere.answer().status, 101);
    // A plain request to a socket's path says what it wants.
    let plain = server.owner().get("/ws/stats");
    assert_eq!(plain.status, 426);
}

#[test]
fn the_end_of_the_server_is_a_close_frame() {
    let mut server = Server::start();
    let mut socket = Ws::at(server.address(), &stats(&server)).open().unwrap();
    assert!(socket.is_alive());
    let closing = std::thread::spawn(move || socket.wait_for_close(SOON));
    let (status, took) = server.terminate();
    assert_eq!(status.code(), Some(0));
    assert!(took < Duration::from_secs(10), "{took:?}");
    assert_eq!(closing.join().unwrap(), Some(1001), "going away (RFC 6455, 7.4.1)");
}

#[test]
fn bytes_right_behind_the_handshake_are_not_lost() {
    let server = Server::start();
    let mut stream = std::net::TcpStream::connect(server.address()).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    let mut bytes = format!(
        "GET {} HTTP/1.1\r\nHost: {}\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        stats(&server),
        server.address()
    )
    .into_bytes();
    bytes.extend(frame(9, b"early"));
    stream.write_all(&bytes).unwrap();
    let mut seen = Vec::new();
    let mut buffer = [0; 4096];
    while !seen.windows(7).any(|w| w == b"\x8a\x05early") {
        let n = stream.read(&mut buffer).expect("a pong");
        assert!(n > 0, "closed: {}", String::from_utf8_lossy(&seen));
        seen.extend_from_slice(&buffer[..n]);
    }
}
