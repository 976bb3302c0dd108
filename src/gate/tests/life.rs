//! What outlives a request: upgraded sessions, the gate itself.

use super::*;

const HANDSHAKE: &str =
    "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n";

/// Sends a handshake and reads the line with which the test's session greets.
fn upgrade(caller: &mut Caller, target: &str, more: &str) -> String {
    caller.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\n{HANDSHAKE}\r\n{more}"));
    while !caller.read.contains(&b'\n') {
        assert!(caller.more(), "no greeting");
    }
    let end = caller.read.iter().position(|&b| b == b'\n').unwrap() + 1;
    String::from_utf8(caller.read.drain(..end).collect()).unwrap()
}

/// Whether a session echoes.
fn echoes(caller: &mut Caller) -> bool {
    if caller.stream.write_all(b"ping").is_err() {
        return false;
    }
    while caller.read.len() < 4 {
        if !caller.more() {
            return false;
        }
    }
    caller.read.drain(..4).eq(*b"ping")
}

#[test]
fn a_websocket_handshake_goes_to_the_upgrade_function_with_what_follows_it() {
    let house = House::new();
    let mut caller = house.connect();
    caller.hello();
    let greeting = upgrade(&mut caller, "/ws/x?token=a%20b", "early");
    assert_eq!(house.arrival(), "/ws/x Some(\"token=a%20b\")");
    assert!(greeting.starts_with("upgraded 127.0.0.1 "), "{greeting}");
    assert!(greeting.contains("sec-websocket-version") && greeting.contains("host"));
    while caller.read.len() < 5 {
        assert!(caller.more());
    }
    assert_eq!(caller.read, b"early");
    caller.read.clear();
    assert!(echoes(&mut caller));
    caller.stream.shutdown(std::net::Shutdown::Write).unwrap();
    assert!(caller.is_over());
}

#[test]
fn what_only_looks_like_a_handshake_is_an_ordinary_request() {
    let house = House::new();
    for line in ["POST /echo HTTP/1.1", "GET /echo HTTP/1.0"] {
        let answer = house.connect().ask(&format!("{line}\r\nHost: a\r\n{HANDSHAKE}\r\n"));
        assert!(answer.status == 200 && !answer.text().contains("Upgrade"), "{line}");
    }
    let mut caller = house.connect();
    caller.hello();
    let answer = caller
        .ask(&format!("GET /echo HTTP/1.1\r\nHost: a\r\n{HANDSHAKE}Content-Length: 1\r\n\r\nx"));
    assert_eq!(answer.status, 400);
}

#[test]
fn a_session_keeps_its_seat_once_it_has_proved_the_token() {
    let house = House::with(GateLimits { connections: 2, ..GateLimits::DEFAULT });
    let mut proved = house.connect_from(1);
    upgrade(&mut proved, "/ws?prove", "");
    let mut stranger = house.connect_from(2);
    upgrade(&mut stranger, "/ws", "");
    let mut newcomer = house.connect_from(3);
    newcomer.hello();
    assert!(!echoes(&mut stranger));
    assert!(echoes(&mut proved));
}

#[test]
fn stopping_lets_running_requests_finish_and_closes_idle_connections() {
    let mut house = House::new();
    let mut idle = house.connect();
    idle.hello();
    let mut half = house.connect();
    half.send("GET /hello HTTP/1.1\r\nHo");
    let mut running = house.connect();
    running.send("GET /wait HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(house.arrival(), "/wait");
    let gate = house.gate.take().unwrap();
    let address = house.address;
    let stopping = thread::spawn(move || gate.stop(FOREVER));
    assert!(idle.is_over() && half.is_over());
    house.go.send(()).unwrap();
    let answer = running.answer();
    assert!(answer.text() == "waited" && answer.has("Connection: close") && running.is_over());
    stopping.join().unwrap();
    assert!(TcpStream::connect(address).is_err());
}

#[test]
fn stopping_does_not_wait_longer_than_it_was_told() {
    let mut house = House::new();
    let mut session = house.connect();
    upgrade(&mut session, "/ws?prove", "");
    let mut slow = house.connect();
    slow.send("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab");
    until("the body is awaited", || house.gate().seats.count() == 2);
    let start = Instant::now();
    house.gate.take().unwrap().stop(Duration::from_millis(500));
    assert!(start.elapsed() < FOREVER);
    assert!(!echoes(&mut session) && slow.is_over());
}

#[test]
fn no_thread_stays_behind() {
    let house = House::new();
    std::fs::write(house.dir.path().join("answer"), b"of a file").unwrap();
    let workers = || {
        let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
        let name = |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("comm"));
        tasks.filter_map(|task| name(task).ok()).filter(|name| name == "gate-connection\n").count()
    };
    for _ in 0..3 {
        let mut callers: Vec<_> = (0..60).map(|_| house.connect()).collect();
        for caller in &mut callers {
            assert_eq!(caller.ask("GET /file HTTP/1.1\r\nHost: a\r\n\r\n").text(), "of a file");
        }
    }
    until("all seats are free", || house.gate().seats.count() == 0);
    // Other tests have some at the same time, but not all the time.
    until("no worker is left", || workers() == 0);
}

#[test]
fn who_waits_in_vain_is_told_so_without_anybody_elses_help() {
    let house = House::with(GateLimits {
        answer: Duration::from_secs(1),
        head: Duration::from_millis(300),
        ..GateLimits::DEFAULT
    });
    let mut caller = house.connect();
    caller.send("GET /wait HTTP/1.1\r\nHost: a\r\n\r\n");
    // Nothing else happens that could wake the event loop.
    assert_eq!(caller.answer().status, 504);
    house.go.send(()).unwrap();
}

#[test]
fn the_times_in_force_are_those_that_are_promised() {
    // The tests above make them shorter, so they cannot see a number that is wrong.
    let GateLimits { head, body, idle, stall, answer, linger, .. } = GateLimits::DEFAULT;
    let seconds = [head, body, idle, stall, answer, linger].map(|time| time.as_secs());
    assert_eq!(seconds, [10, 30, 75, 10, 60, 2]);
    let GateLimits { connections, per_client, held_bytes, body_bytes, .. } = GateLimits::DEFAULT;
    assert_eq!((connections, per_client, held_bytes, body_bytes), (512, 64, 4 << 20, 1 << 20));
}
