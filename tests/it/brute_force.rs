//! Brute force (P8 to P13).

use crate::harness::wait::let_pass;
use crate::harness::{Http, Server, Setup, Ws, process, until, until_some};
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// Free bad tries of a client.
const FREE: usize = 5;

fn guess(client: &mut Http) -> u16 {
    client.get("/api/session").status
}

/// A guesser at this address, as a trusted proxy reports it.
fn guesser(server: &Server, address: &str) -> Http {
    server.stranger().forwarded_for(address).bearer("guess")
}

/// The owner at this address.
fn owner(server: &Server, address: &str) -> Http {
    server.owner().forwarded_for(address)
}

fn lock_out(client: &mut Http) {
    for _ in 0..FREE {
        assert_eq!(guess(client), 401);
    }
    assert_eq!(guess(client), 429);
}

/// Waits until a client's lockout is over.
fn wait_for_the_end(probe: &mut Http) {
    until("the lockout ends", Duration::from_secs(20), || probe.get("/api/session").status == 200);
}

#[test]
fn p8_five_free_tries_then_lockouts_that_double() {
    // A machine too busy to ask in time measures nothing.
    assert!((0..5).any(|_| lockouts_double()), "a lockout that should be over lasts");
}

/// False when a request was so late that nothing follows from its answer.
fn lockouts_double() -> bool {
    let in_time = |begun: Instant, millis| begun.elapsed() < Duration::from_millis(millis);
    let server = Server::start();
    let mut guesser = server.stranger().bearer("guess");
    let mut owner = server.owner();
    let mut begun = Instant::now();
    for try_number in 1..=FREE {
        begun = Instant::now();
        let answer = guesser.get("/api/apps").expect(401);
        assert_eq!(answer.header("Retry-After"), None, "try {try_number}");
    }
    let begun_at_last = Instant::now();
    let locked = guesser.get("/api/apps");
    // Right or wrong makes no difference while it lasts.
    let owners = owner.get("/api/apps").status;
    if !in_time(begun, 900) {
        return false;
    }
    let locked = locked.expect(429);
    assert_eq!(owners, 429);
    assert_eq!(locked.header("Retry-After"), Some("2"), "whole seconds, rounded up");
    assert!(locked.message().contains("2 s"), "{}", locked.text());
    assert_eq!(guess(&mut server.stranger()), 401, "no token, no count, no lockout");

    // Tries during the lockout do not prolong it.
    let_pass(Duration::from_millis(1100).saturating_sub(begun_at_last.elapsed()));
    let later = guesser.get("/api/apps");
    if !in_time(begun, 1900) {
        return false;
    }
    assert_eq!(later.expect(429).header("Retry-After"), Some("1"));
    let_pass(Duration::from_millis(2010).saturating_sub(begun_at_last.elapsed()));
    let begun = Instant::now();
    assert_eq!(guess(&mut guesser), 401, "the lockout is over after 2 s");
    let doubled = guesser.get("/api/apps");
    if !in_time(begun, 900) {
        return false;
    }
    assert_eq!(doubled.expect(429).header("Retry-After"), Some("4"));
    wait_for_the_end(&mut owner);
    let took = begun.elapsed().as_secs_f64();
    assert!(took > 3.9, "4 s, not {took}");
    if took > 4.6 {
        return false;
    }

    // The right token cleared the record: five free tries again.
    lock_out(&mut guesser);
    true
}

#[test]
fn p8_http_and_websocket_share_the_record() {
    let server = Server::start();
    let mut guesser = server.stranger().bearer("guess");
    let socket = |query: &str| {
        let path = format!("/ws/stats?{query}");
        Ws::at(server.address(), &path).open().err().map_or((101, None), |refusal| {
            (refusal.status, refusal.header("Retry-After").map(str::to_owned))
        })
    };
    assert_eq!(guess(&mut guesser), 401);
    assert_eq!(guess(&mut guesser), 401);
    assert_eq!(socket("token=guess").0, 401);
    assert_eq!(socket("ticket=guess").0, 401);
    assert_eq!(socket("token=guess").0, 401);
    assert_eq!(guess(&mut guesser), 429);
    let (status, retry_after) = socket(&format!("token={}", server.token()));
    assert_eq!(status, 429);
    assert!(retry_after.is_some_and(|seconds| seconds == "2" || seconds == "1"));
    server.owner().get("/api/session").expect(429);
    // Whatever shows a token or a ticket: where it opens nothing, and wrongly, too.
    for path in ["/", "/healthz", "/no-such-file", "/ws"] {
        assert_eq!(guesser.get(path).status, 429, "{path}");
        assert_ne!(server.stranger().get(path).status, 429, "{path}");
    }
    assert_eq!(socket("token=guess&token=guess").0, 429);
    assert_eq!(socket("token=guess&ticket=guess").0, 429);
    let foreign = Ws::at(server.address(), "/ws/stats?token=guess");
    let foreign = foreign.with("Origin", "http://elsewhere.example").open().err();
    assert_eq!(foreign.map(|refusal| refusal.status), Some(429));
    let header = format!("Bearer {}", server.token());
    let elsewhere = Ws::at(server.address(), "/ws/stats").with("Authorization", &header).open();
    assert_eq!(elsewhere.err().map(|refusal| refusal.status), Some(429));
    assert_eq!(socket("").0, 401, "no token, no lockout");
    wait_for_the_end(&mut server.owner());
    assert_eq!(socket(&format!("token={}", server.token())).0, 101);
}

#[test]
fn p9_a_request_without_a_token_is_not_counted() {
    let server = Server::start();
    let mut probe = server.stranger();
    for _ in 0..50 {
        probe.get("/api/apps").expect(401);
        probe.get("/healthz").expect(200);
    }
    for _ in 0..10 {
        assert_eq!(Ws::at(server.address(), "/ws/stats").open().err().unwrap().status, 401);
    }
    server.owner().get("/api/session").expect(200);
    let lockouts = server.owner().get("/api/security/lockouts").expect(200).json();
    assert_eq!(lockouts["lockouts"], Value::Array(vec![]));
}

#[test]
fn p10_a_client_is_an_ipv4_address_or_an_ipv6_64() {
    let server = Setup::new().trust_proxy().start();
    for last in 1..=FREE {
        assert_eq!(guess(&mut guesser(&server, &format!("2001:db8:1:2:{last}::{last}"))), 401);
    }
    assert_eq!(guess(&mut owner(&server, "2001:db8:1:2:ffff::1")), 429, "the same /64");
    assert_eq!(guess(&mut owner(&server, "2001:db8:1:3::1")), 200, "another /64");

    for _ in 0..3 {
        assert_eq!(guess(&mut guesser(&server, "198.51.100.1")), 401);
    }
    for _ in 0..2 {
        assert_eq!(guess(&mut guesser(&server, "::ffff:198.51.100.1")), 401);
    }
    assert_eq!(guess(&mut owner(&server, "198.51.100.1")), 429);
    assert_eq!(guess(&mut owner(&server, "::ffff:c633:6401")), 429);
    assert_eq!(guess(&mut owner(&server, "198.51.100.2")), 200);
}

#[test]
fn p10_a_dual_stack_listener_gives_nobody_a_second_name() {
    let server = Setup::new().listen(":0").start();
    let port = server.address().port();
    let v4 = || Http::new(([127, 0, 0, 1], port).into()).coming_from([127, 0, 0, 77]);
    lock_out(&mut v4().bearer("guess"));
    let lockouts = server.owner().get("/api/security/lockouts").expect(200).json();
    assert_eq!(lockouts["lockouts"][0]["client"], "127.0.0.77");
    assert_eq!(guess(&mut v4().bearer(&server.token())), 429);
}

#[test]
fn p11_without_trust_proxy_forwarding_headers_are_ignored() {
    let server = Server::start();
    for number in 0..FREE {
        let mut client = guesser(&server, &format!("198.51.100.{number}"));
        client = client.with("X-Real-IP", "192.0.2.7").with("Forwarded", "for=192.0.2.8");
        assert_eq!(guess(&mut client), 401);
    }
    assert_eq!(guess(&mut owner(&server, "203.0.113.9")), 429);
    assert_eq!(guess(&mut server.owner()), 429);
    // A different peer is a different client.
    assert_eq!(guess(&mut server.owner().coming_from([127, 0, 0, 9])), 200);
}

#[test]
fn p11_with_trust_proxy_true_a_proxy_on_this_machine_is_believed() {
    let server = Setup::new().trust_proxy().start();
    lock_out(&mut guesser(&server, "198.51.100.7"));
    assert_eq!(guess(&mut owner(&server, "198.51.100.8")), 200);
    assert_eq!(guess(&mut owner(&server, "198.51.100.7")), 429);
    // Right-most that is not a trusted proxy; what the client wrote to the left changes nothing.
    for chain in [
        "203.0.113.5, 198.51.100.7",
        "garbage, 203.0.113.5, 198.51.100.7",
        "198.51.100.7, 10.1.2.3, 192.168.1.1, 127.0.0.1",
        ",198.51.100.7",
        "203.0.113.5,198.51.100.7",
    ] {
        assert_eq!(guess(&mut owner(&server, chain)), 429, "{chain}");
    }
    for chain in ["198.51.100.7, 203.0.113.6", "10.0.0.1, 198.51.100.7, 203.0.113.6"] {
        assert_eq!(guess(&mut owner(&server, chain)), 200, "{chain}");
    }
}

#[test]
fn p11_several_forwarding_headers_are_one_list() {
    let server = Setup::new().trust_proxy().start();
    lock_out(&mut guesser(&server, "198.51.100.7"));
    let ask = |first: &str, second: &str| {
        let request = format!(
            "GET /api/session HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nX-Forwarded-For: {first}\r\nX-Forwarded-For: {second}\r\n\r\n",
            server.token()
        );
        let mut connection = crate::harness::RawConn::to(server.address());
        connection.send(request).answer().status
    };
    assert_eq!(ask("203.0.113.5", "198.51.100.7"), 429);
    assert_eq!(ask("198.51.100.7", "203.0.113.5"), 200);
}

#[test]
fn p11_with_ranges_only_those_proxies_are_believed() {
    let elsewhere = Setup::new().env("TRUST_PROXY", "10.0.0.0/8, fd00::/8").start();
    for number in 0..FREE {
        assert_eq!(guess(&mut guesser(&elsewhere, &format!("198.51.100.{number}"))), 401);
    }
    assert_eq!(guess(&mut owner(&elsewhere, "203.0.113.1")), 429);

    let here = Setup::new().env("TRUST_PROXY", "127.0.0.1/32,203.0.113.0/24").start();
    lock_out(&mut guesser(&here, "198.51.100.7"));
    assert_eq!(guess(&mut owner(&here, "198.51.100.7, 203.0.113.200")), 429);
    assert_eq!(guess(&mut owner(&here, "198.51.100.8, 203.0.113.200")), 200);
    // A private address is no proxy unless it was named.
    assert_eq!(guess(&mut owner(&here, "198.51.100.7, 10.0.0.1")), 200);
    // 127.0.0.2 was not named.
    let mut other = here.owner().coming_from([127, 0, 0, 2]).forwarded_for("198.51.100.7");
    assert_eq!(guess(&mut other), 200);
}

/// Sends `count` bad guesses, each from an address of its own, many at a time on one connection.
fn flood(server: &Server, first: u32, count: u32) {
    const BATCH: u32 = 200;
    let mut stream = TcpStream::connect(server.address()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let mut from = BufReader::new(stream.try_clone().unwrap());
    let mut address = first;
    while address < first + count {
        let mut batch = String::new();
        for number in address..address + BATCH {
            let [_, b, c, d] = number.to_be_bytes();
            batch.push_str(
                "GET /api/session HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer guess\r\n",
            );
            batch.push_str(&format!("X-Forwarded-For: 11.{b}.{c}.{d}\r\n\r\n"));
        }
        stream.write_all(batch.as_bytes()).unwrap();
        for _ in 0..BATCH {
            skip_answer(&mut from);
        }
        address += BATCH;
    }
}

fn skip_answer(from: &mut BufReader<TcpStream>) {
    let mut length = 0;
    let mut line = String::new();
    let mut first = true;
    loop {
        line.clear();
        assert!(from.read_line(&mut line).unwrap() > 0, "closed");
        if first {
            assert!(line.starts_with("HTTP/1.1 401"), "{line}");
            first = false;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if line == "\r\n" {
            break;
        }
    }
    std::io::copy(&mut from.take(length), &mut std::io::sink()).unwrap();
}

#[test]
fn p12_a_million_addresses_cost_no_more_than_16_mib() {
    const ADDRESSES: u32 = 1_000_000;
    let server = Setup::new().trust_proxy().start();
    let mut victim = guesser(&server, "198.51.100.7");
    lock_out(&mut victim);
    flood(&server, 0, 1000);
    let before = process::resident_kib(server.pid()).unwrap();
    std::thread::scope(|scope| {
        for part in 0..2 {
            let (server, half) = (&server, ADDRESSES / 2);
            scope.spawn(move || flood(server, 1_000_000 + part * half, half));
        }
    });
    let after = process::resident_kib(server.pid()).unwrap();
    assert!(after < before + 16 * 1024, "{before} KiB before, {after} KiB after");
    owner(&server, "198.51.100.8").get("/api/session").expect(200);
    // A flood of first tries is no flood of the log.
    assert!(server.log().len() < 1024 * 1024, "{} bytes of log", server.log().len());
}

#[test]
fn p12_a_lockout_in_force_survives_a_flood_of_new_faces() {
    let server = Setup::new().trust_proxy().start();
    let mut victim = guesser(&server, "198.51.100.7");
    lock_out(&mut victim);
    // More faces than there are records, while the lockout is in force: of 8 s, or on a slow machine of the next, which
    // lasts twice as long.
    let mut lasts = Duration::from_secs(2);
    let mut faces = 0;
    loop {
        until_some("the next try counts", lasts + Duration::from_secs(60), || {
            (guess(&mut victim) == 401).then_some(())
        });
        let begin = Instant::now();
        lasts *= 2;
        if lasts >= Duration::from_secs(8) {
            flood(&server, faces, 40_000);
            faces += 40_000;
            // In time only: after the lockout the right token would clear the record.
            if begin.elapsed() + Duration::from_secs(2) < lasts {
                assert_eq!(guess(&mut owner(&server, "198.51.100.7")), 429);
                break;
            }
        }
        assert!(lasts < Duration::from_secs(200), "40,000 tries take longer than any lockout");
    }
}

#[test]
fn p13_the_operator_needs_no_token_in_his_shell_when_the_service_pins_it() {
    let server = Setup::new().token(&crate::harness::a_token()).trust_proxy().start();
    let mut client = guesser(&server, "198.51.100.7");
    lock_out(&mut client);
    let shell = server.setup().clone().without("ADMIN_TOKEN");
    let printed = shell.run(&["lockouts"]);
    assert!(printed.code == Some(0) && printed.stdout.contains("198.51.100.7"), "{printed:?}");
    let cleared = shell.run(&["lockouts", "clear", "198.51.100.7"]);
    assert_eq!(cleared.code, Some(0), "{cleared:?}");
    assert_eq!(guess(&mut owner(&server, "198.51.100.7")), 200);
    // The token itself is where the service has it, and the sentence says so.
    let token = shell.run(&["token"]);
    assert!(token.code == Some(1) && token.stderr.contains("ADMIN_TOKEN"), "{token:?}");
}

#[test]
fn p13_lockouts_are_logged_and_listed_and_can_be_cleared() {
    let server = Setup::new().trust_proxy().start();
    let mut api = owner(&server, "203.0.113.1");
    assert_eq!(guess(&mut guesser(&server, "198.51.100.7")), 401);
    server.wait_for_log("198.51.100.7");
    let mut client = guesser(&server, "2001:db8:1:2::9");
    lock_out(&mut client);
    server.wait_for_log("2001:db8:1:2::/64");

    let listed = api.get("/api/security/lockouts").expect(200).json();
    let lockout = listed["lockouts"].as_array().unwrap().iter();
    let lockout = lockout.clone().find(|l| l["client"] == "2001:db8:1:2::/64").unwrap();
    assert_eq!(lockout["failures"], 5);
    let printed = server.operator(&["lockouts"]);
    assert_eq!(printed.code, Some(0), "{printed:?}");
    assert!(printed.stdout.contains("2001:db8:1:2::/64"), "{printed:?}");

    // The operator's own address may be locked out; the machine's shell still works.
    let cleared = server.operator(&["lockouts", "clear", "2001:db8:1:2::/64"]);
    assert_eq!(cleared.code, Some(0), "{cleared:?}");
    assert_eq!(guess(&mut owner(&server, "2001:db8:1:2::9")), 200);
    lock_out(&mut client);
    api.delete("/api/security/lockouts/2001:db8:1:2::%2F64").expect(204);
    assert_eq!(guess(&mut owner(&server, "2001:db8:1:2::9")), 200);
    api.delete("/api/security/lockouts/192.0.2.99").expect(404);
    api.delete("/api/security/lockouts/nonsense").expect(400);
    let unknown = server.operator(&["lockouts", "clear", "192.0.2.99"]);
    assert_eq!(unknown.code, Some(1), "{unknown:?}");
    assert!(unknown.stderr.contains("'server lockouts'"), "{unknown:?}");
}

#[test]
fn p13_who_locked_himself_out_gets_back_in_from_the_shell() {
    let server = Server::start();
    lock_out(&mut server.stranger().bearer("guess"));
    server.owner().get("/api/session").expect(429);
    let printed = server.operator(&["lockouts"]);
    assert!(printed.stdout.contains("127.0.0.1"), "{printed:?}");
    let cleared = server.operator(&["lockouts", "clear", "127.0.0.1"]);
    assert_eq!(cleared.code, Some(0), "{cleared:?}");
    server.owner().get("/api/session").expect(200);
    let none = server.operator(&["lockouts"]);
    assert!(none.code == Some(0) && !none.stdout.contains("127.0.0.1"), "{none:?}");
}

#[test]
fn p13_a_long_attack_does_not_flood_the_log() {
    let server = Server::start();
    let mut guesser = server.stranger().bearer("guess");
    for _ in 0..500 {
        guess(&mut guesser);
    }
    let lines = server.log().lines().filter(|l| l.contains("127.0.0.1")).count();
    assert!((1..=8).contains(&lines), "{}", server.log());
    assert!(!server.log().contains("guess"), "what was tried may be a slip of the real token");
}
