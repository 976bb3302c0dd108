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
    fn go_on(&self) -> bool {
        !self.over.load(Ordering::Relaxed)
    }

    /// A connection from the next attacker's address. A refused one is part of the game.
    fn open(&self) -> Option<RawConn> {
        let limit = Duration::from_secs(2);
        let opened = RawConn::open(self.server.address(), Some(from(&self.counter)), limit).ok();
        self.attacks.fetch_add(usize::from(opened.is_some()), Ordering::Relaxed);
        opened
    }

    /// One attack, again and again until the siege is over.
    fn repeat(&self, attack: fn(&mut RawConn)) {
        while self.go_on() {
            if let Some(mut connection) = self.open() {
                attack(&mut connection);
            }
        }
    }

    fn reset_in_the_middle(&self) {
        while self.go_on() {
            if let Some(mut connection) = self.open() {
                send(&mut connection, "GET /healthz HT");
                connection.reset();
            }
        }
    }

    /// Crowds: idle, in the middle of a head, in the middle of a body; each stays until the next one is there.
    fn crowd(&self) {
        let openings: [&[u8]; 3] =
            [b"", b"GET / HT", b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n\r\nx"];
        let mut crowd = Vec::new();
        for opening in openings.into_iter().cycle().take_while(|_| self.go_on()) {
            let next = many_clients(self.server, 600, opening);
            crowd = next;
        }
        drop(crowd);
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
    let (mut slowest, mut refusals) = (Duration::ZERO, 0);
    std::thread::scope(|scope| {
        for attack in [huge_body, endless_header, smuggling, guessing, large_bodies] {
            scope.spawn(move || a.repeat(attack));
        }
        scope.spawn(|| a.reset_in_the_middle());
        scope.spawn(|| a.crowd());
        let _relief = Relief(&a.over);
        let begin = Instant::now();
        while begin.elapsed() < SIEGE {
            refusals += watch.owner_gets_in();
            watch.memory_holds();
            let asked = Instant::now();
            kept.send(&ask).answer().expect(200);
            slowest = slowest.max(asked.elapsed());
            assert!(slowest < Duration::from_secs(1), "the signed-in owner waited {slowest:?}");
            assert!(socket.is_alive(), "the owner's session was dropped");
        }
    });
    let attacks = attackers.attacks.load(Ordering::Relaxed);
    assert!(attacks > 100, "only {attacks} attacks: no siege");
    println!(
        "{attacks} attacks; the owner waited {slowest:?} at most, {refusals} new connections refused"
    );
    socket.close();
    drop(kept);
    watch.goes_back();
    assert!(server.is_running() && server.pid() == pid);
    assert!(!server.log().contains("panicked"), "{}", server.log());
    assert_eq!(server.terminate().0.code(), Some(0));
}
