//! The front door under all attacks at once, beside a signed-in owner (P22).

use crate::harness::front::{Watch, many_clients, request};
use crate::harness::{RawConn, Server, Setup, Ws};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// How long the siege lasts: longer than the limit for a request's head.
const SIEGE: Duration = Duration::from_secs(14);

/// The next address of an attacker, so that no limit for one client ends the attack.
fn from(counter: &AtomicU8) -> IpAddr {
    let number = counter.fetch_add(1, Ordering::Relaxed);
    IpAddr::from([127, 0, 9, number.max(1)])
}

struct Attackers<'a> {
    server: &'a Server,
    counter: AtomicU8,
    attacks: AtomicUsize,
    over: AtomicBool,
}

impl Attackers<'_> {
    /// One attack, again and again until the siege is over. A refused connection is part of the game.
    fn repeat(&self, attack: impl Fn(&mut RawConn)) {
        while !self.over.load(Ordering::Relaxed) {
            let limit = Duration::from_secs(2);
            let opened = RawConn::open(self.server.address(), Some(from(&self.counter)), limit);
            if let Ok(mut connection) = opened {
                attack(&mut connection);
                self.attacks.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// Ends the siege, also when the owner's side of it has panicked.
struct Relief<'a>(&'a AtomicBool);

impl Drop for Relief<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Sends bytes; the server may refuse them.
fn send(connection: &mut RawConn, bytes: impl AsRef<[u8]>) {
    let _refused = connection.try_send(bytes.as_ref());
}

fn huge_body(connection: &mut RawConn) {
    send(
        connection,
        "POST /api/apps HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999\r\n\r\n",
    );
    connection.drain();
}

fn endless_header(connection: &mut RawConn) {
    send(connection, "GET / HTTP/1.1\r\nHost: x\r\nX: ");
    while connection.try_send(&[b'a'; 8192]).is_ok() {}
}

fn smuggling(connection: &mut RawConn) {
    let head =
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n";
    send(connection, format!("{head}0\r\n\r\nGET / HTTP/1.1\r\nHost: y\r\n\r\n"));
    connection.drain();
}

fn guessing(connection: &mut RawConn) {
    let guess = request("bpaas_guess");
    for _ in 0..20 {
        send(connection, &guess);
        if connection.try_answer(false).is_err() {
            break;
        }
    }
}

fn large_bodies(connection: &mut RawConn) {
    let body = vec![b'['; 1024 * 1024];
    let head =
        format!("POST /api/apps HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", body.len());
    send(connection, head);
    send(connection, body);
    let _refused = connection.try_answer(false);
}

#[test]
fn all_attacks_at_once_leave_the_owner_his_server() {
    let mut server = Setup::new().start();
    let pid = server.pid();
    let watch = Watch::over(&server);
    let mut kept = RawConn::to(server.address());
    let ask = request(&server.token());
    kept.send(&ask).answer().expect(200);
    let mut socket = Ws::at(server.address(), &format!("/ws/stats?token={}", server.token()))
        .coming_from([127, 0, 0, 250])
        .open()
        .unwrap();

    let attackers = Attackers {
        server: &server,
        counter: AtomicU8::new(1),
        attacks: AtomicUsize::new(0),
        over: AtomicBool::new(false),
    };
    let a = &attackers;
    let mut slowest = Duration::ZERO;
    std::thread::scope(|scope| {
        scope.spawn(|| a.repeat(huge_body));
        scope.spawn(|| a.repeat(endless_header));
        scope.spawn(|| a.repeat(smuggling));
        scope.spawn(|| a.repeat(guessing));
        scope.spawn(|| a.repeat(large_bodies));
        // Resets in the middle of everything.
        scope.spawn(|| {
            while !a.over.load(Ordering::Relaxed) {
                let limit = Duration::from_secs(2);
                let opened = RawConn::open(server.address(), Some(from(&a.counter)), limit);
                if let Ok(mut connection) = opened {
                    send(&mut connection, "GET /healthz HT");
                    connection.reset();
                }
            }
        });
        // Crowds: idle, in the middle of a head, in the middle of a body; each until the next one.
        scope.spawn(|| {
            let openings: [&[u8]; 3] =
                [b"", b"GET / HT", b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n\r\nx"];
            let mut crowd = Vec::new();
            let mut turn = 0;
            while !a.over.load(Ordering::Relaxed) {
                let next = many_clients(&server, 600, openings[turn % 3]);
                crowd = next;
                turn += 1;
            }
            drop(crowd);
        });
        let _relief = Relief(&a.over);
        let begin = Instant::now();
        while begin.elapsed() < SIEGE {
            slowest = slowest.max(watch.owner_is_answered());
            watch.holds();
            kept.send(&ask).answer().expect(200);
            assert!(socket.is_alive(), "the owner's session was dropped");
        }
    });
    let attacks = attackers.attacks.load(Ordering::Relaxed);
    assert!(attacks > 100, "only {attacks} attacks: no siege");
    println!("{attacks} attacks, the owner waited {slowest:?} at most");
    socket.close();
    drop(kept);
    watch.goes_back();
    assert!(server.is_running() && server.pid() == pid);
    assert!(!server.log().contains("panicked"), "{}", server.log());
    assert_eq!(server.terminate().0.code(), Some(0));
}
