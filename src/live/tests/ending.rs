//! How sessions end, without leaving anything behind.

use super::*;
use tungstenite::protocol::CloseFrame;
use tungstenite::protocol::frame::coding::CloseCode;

/// Everything the server still sends; an end by reset counts as an end.
fn rest(stream: &mut TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    let _ = stream.read_to_end(&mut all);
    all
}

/// The code in an unmasked close frame at the end of what was sent.
fn close_code(sent: &[u8]) -> Option<u16> {
    let at = sent.windows(2).rposition(|w| w[0] == 0x88 && w[1] >= 2 && w[1] < 126)?;
    Some(u16::from_be_bytes([*sent.get(at + 2)?, *sent.get(at + 3)?]))
}

#[test]
fn pings_are_answered_and_close_is_obeyed() {
    let server = Server::start(quick());
    let id = server.deploy(1);
    let mut socket = server.open(&format!("/ws/deploys/{id}"));
    socket.send(Message::Ping("hello".into())).unwrap();
    assert_eq!(socket.read().unwrap(), Message::Pong("hello".into()));
    socket.send(Message::text("nobody asked")).unwrap();
    socket.send(Message::binary(vec![0; 60_000])).unwrap();
    socket.send(Message::Ping("still".into())).unwrap();
    assert_eq!(socket.read().unwrap(), Message::Pong("still".into()));
    let frame = CloseFrame { code: CloseCode::Normal, reason: "bye".into() };
    socket.close(Some(frame.clone())).unwrap();
    assert_eq!(socket.read().unwrap(), Message::Close(Some(frame)));
    assert!(matches!(socket.read(), Err(tungstenite::Error::ConnectionClosed)));
    server.expect_sessions(0);
}

#[test]
fn a_peer_that_answers_pings_stays_and_one_that_does_not_is_dropped() {
    let server = Server::start(LiveLimits {
        ping_every: Duration::from_millis(200),
        // Long enough for a peer on a machine that is busy with something else.
        pong_within: Duration::from_secs(3),
        ..quick()
    });
    let id = server.deploy(1);
    let mut here = server.open(&format!("/ws/deploys/{id}"));
    let mut gone = server.open(&format!("/ws/deploys/{id}"));
    server.expect_sessions(2);
    let mut answers = || {
        assert!(matches!(here.read().unwrap(), Message::Ping(_)));
        here.flush().unwrap();
    };
    while server.live.seats.taken() == 2 {
        answers();
    }
    (0..3).for_each(|_| answers());
    assert_eq!(server.live.seats.taken(), 1);
    // It was told nothing: its pings, then the end.
    assert!(rest(gone.get_mut()).chunks(2).all(|ping| ping == [0x89, 0]));
}

#[test]
fn a_peer_that_does_not_read_is_dropped() {
    let server = Server::start(quick());
    let id = server.deploy(1);
    let writer = server.journal.begin(LogOf::Deploy(id.clone()), Redactor::default()).unwrap();
    let target = server.with_token(&format!("/ws/deploys/{id}"));
    let (_stream, answer) = server.request(&target, &server.usual());
    assert!(answer.starts_with("HTTP/1.1 101"));
    server.expect_sessions(1);
    let line = "y".repeat(8_000);
    // More than the kernel takes for both sides together.
    (0..1_250).for_each(|_| writer.line(&line));
    server.expect_sessions(0);
}

#[test]
fn messages_up_to_64_kib_are_read_and_larger_ones_end_the_session() {
    let server = Server::start(quick());
    let id = server.deploy(1);
    let mut socket = server.open(&format!("/ws/deploys/{id}"));
    socket.send(Message::binary(vec![0; 64 * 1024])).unwrap();
    socket.send(Message::Ping("x".into())).unwrap();
    assert_eq!(socket.read().unwrap(), Message::Pong("x".into()));
    socket.send(Message::binary(vec![0; 65 * 1024])).unwrap();
    assert_eq!(close_of(&mut socket).0, 1009);

    // In pieces too; each piece alone would be small enough.
    let mut socket = server.open(&format!("/ws/deploys/{id}"));
    for first in [2u8, 0] {
        let mut frame = vec![first, 0x80 | 127];
        frame.extend(40_000u64.to_be_bytes());
        frame.extend([0; 4 + 40_000]);
        socket.get_mut().write_all(&frame).unwrap();
    }
    assert_eq!(close_of(&mut socket).0, 1009);
    // And a length alone, without the bytes.
    let mut socket = server.open(&format!("/ws/deploys/{id}"));
    socket
        .get_mut()
        .write_all(&[0x82, 0xff, 0x7f, 255, 255, 255, 255, 255, 255, 255, 0, 0, 0, 0])
        .unwrap();
    assert_eq!(close_of(&mut socket).0, 1009);
    server.expect_sessions(0);
}

#[test]
fn frames_against_the_protocol_end_the_session() {
    let server = Server::start(quick());
    let id = server.deploy(1);
    let target = server.with_token(&format!("/ws/deploys/{id}"));
    let cases: [(&str, &[u8], u16); 7] = [
        ("unmasked", b"\x81\x02hi", 1002),
        ("reserved bit", b"\xc1\x80\0\0\0\0", 1002),
        ("reserved kind", b"\x83\x80\0\0\0\0", 1002),
        ("continues nothing", b"\x80\x80\0\0\0\0", 1002),
        ("ping in pieces", b"\x09\x80\0\0\0\0", 1002),
        ("ping over 125 bytes", b"\x89\xfe\0\x7e\0\0\0\0", 1002),
        ("not UTF-8", b"\x81\x81\0\0\0\0\xff", 1007),
    ];
    for (what, bytes, code) in cases {
        let (mut stream, _) = server.request(&target, &server.usual());
        stream.write_all(bytes).unwrap();
        if what == "ping over 125 bytes" {
            stream.write_all(&[0; 126]).unwrap();
        }
        let sent = rest(&mut stream);
        assert_eq!(close_code(&sent), Some(code), "{what}: {sent:?}");
    }
    server.expect_sessions(0);
}

#[test]
fn a_frame_that_came_with_the_handshake_counts() {
    let server = Server::start(quick());
    let id = server.deploy(1);
    let mut stream = server.stream();
    let target = server.with_token(&format!("/ws/deploys/{id}"));
    let head = format!("GET {target} HTTP/1.1\r\n{}\r\n", server.usual());
    let both = [head.as_bytes(), b"\x89\x80\0\0\0\0\x88\x80\0\0\0\0"].concat();
    stream.write_all(&both).unwrap();
    assert!(read_head(&mut stream).starts_with("HTTP/1.1 101"));
    let sent = rest(&mut stream);
    assert!(sent.ends_with(&[0x88, 0]), "{sent:?}");
}

#[test]
fn a_session_ends_with_the_token_that_opened_it_p5() {
    let server = Server::start(LiveLimits { tick: LiveLimits::default().tick, ..quick() });
    let id = server.deploy(1);
    let mut sockets = [server.open(&format!("/ws/deploys/{id}")), server.open("/ws/stats")];
    server.expect_sessions(2);
    server.auth.rotate().unwrap();
    let start = Instant::now();
    for socket in &mut sockets {
        assert_eq!(close_of(socket), (1008, "token changed".to_owned()));
    }
    // At the next tick, long before the next ping.
    assert!(start.elapsed() < LiveLimits::default().ping_every / 2, "{:?}", start.elapsed());
    server.expect_sessions(0);
    assert!(
        tungstenite::client(
            format!("ws://{}{}", server.address, server.with_token("/ws/stats")),
            server.stream()
        )
        .is_ok()
    );
}

#[test]
fn one_who_never_stops_sending_is_sent_away_all_the_same() {
    let server = Server::start(quick());
    let id = server.deploy(1);
    let socket = server.open(&format!("/ws/deploys/{id}"));
    let mut stream = socket.get_ref().try_clone().unwrap();
    let flood = std::thread::spawn(move || {
        let pings = b"\x89\x80\0\0\0\0".repeat(1_000);
        while stream.write_all(&pings).is_ok() {}
    });
    server.expect_sessions(1);
    server.auth.rotate().unwrap();
    server.expect_sessions(0);
    flood.join().unwrap();
}

#[test]
fn shutdown_says_goodbye_refuses_newcomers_and_is_quick() {
    let server = Server::start(LiveLimits::default());
    let id = server.deploy(1);
    let mut polite = server.open(&format!("/ws/deploys/{id}"));
    let _deaf = server.open("/ws/stats");
    server.expect_sessions(2);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| close_of(&mut polite));
        server.live.shutdown();
        assert_eq!(reader.join().unwrap(), (1001, "the server is stopping".to_owned()));
    });
    let (status, answer) = server.try_open(&server.with_token("/ws/stats"), "");
    assert_eq!((status, answer.contains("stopping")), (503, true));
    server.expect_sessions(0);
}

#[test]
fn nothing_stays_behind() {
    let count = |what: &str| std::fs::read_dir(format!("/proc/self/{what}")).unwrap().count();
    let server = Server::start(quick());
    let (deploy, app) = (server.deploy(1), server.app(2));
    drop(server.journal.begin(LogOf::Deploy(deploy.clone()), Redactor::default()).unwrap());
    let paths =
        [format!("/ws/deploys/{deploy}"), format!("/ws/apps/{app}/log"), "/ws/stats".to_owned()];
    let (files, threads) = (count("fd"), count("task"));
    for round in 0..150 {
        for path in &paths {
            let mut socket = server.open(path);
            match round % 3 {
                // Politely, by hanging up, and against the protocol.
                0 => drop(socket.close(None)),
                1 => {}
                _ => socket.get_mut().write_all(b"\x81\x02hi").unwrap(),
            }
        }
        server.expect_sessions(0);
    }
    // Other tests run in this process meanwhile, so the bounds are loose; one
    // thing left behind by each of the 450 sessions would exceed them.
    assert!(count("fd") < files + 300, "{files} then {}", count("fd"));
    assert!(count("task") < threads + 100, "{threads} then {}", count("task"));
}
