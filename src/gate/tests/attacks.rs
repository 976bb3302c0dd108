//! Attacks that end tiny_http when it stands alone (P22).

use super::*;
use rustix::process::{Resource, getrlimit, setrlimit};

/// Allows more files than a shell does, for crowds.
fn allow_many_files() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum.map(|most| most.min(8192));
    setrlimit(Resource::Nofile, limit).unwrap();
}

#[test]
fn an_immense_content_length_is_refused_and_nobody_dies() {
    let house = House::new();
    let mut caller = house.connect();
    let answer =
        caller.ask("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999\r\n\r\n");
    assert_eq!(answer.status, 413);
    house.owner_is_served();
}

#[test]
fn bodies_that_never_come_keep_nobody_waiting() {
    let house = House::new();
    let silent: Vec<_> = (0..100)
        .map(|n| {
            let mut caller = house.connect_from(n);
            caller.send("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5000\r\n\r\n");
            caller
        })
        .collect();
    house.owner_is_served();
    drop(silent);
}

#[test]
fn a_header_line_that_never_ends_ends() {
    let house = House::new();
    let mut caller = house.connect();
    caller.send("GET /hello HTTP/1.1\r\nHost: a\r\nA: ");
    let mut writer = caller.stream.try_clone().unwrap();
    let flood = thread::spawn(move || {
        let piece = [b'x'; 8192];
        while writer.write_all(&piece).is_ok() {}
    });
    assert_eq!(caller.answer().status, 431);
    house.owner_is_served();
    drop(caller);
    flood.join().unwrap();
}

#[test]
fn a_crowd_of_a_thousand_idle_connections_locks_nobody_out() {
    allow_many_files();
    let house = House::new();
    // A signed-in owner who was there before keeps the connection.
    let mut early = house.connect_from(50_000);
    early.ask(&format!("GET /hello HTTP/1.1\r\nHost: a\r\n{}\r\n", bearer()));
    let mut crowd: Vec<_> = (0..1000_u16).map(|n| house.connect_from(n / 50)).collect();
    for caller in &mut crowd {
        // Some never say a word, some never finish one.
        let _ = caller.stream.write(b"GET /hel");
    }
    house.owner_is_served();
    early.hello();
    let gate = house.gate();
    assert!(gate.seats.count() <= 512 + 64, "{}", gate.seats.count());
    drop(crowd);
    until("everybody has gone but the owner", || gate.seats.count() == 1);
    early.hello();
}

#[test]
fn one_client_gets_64_connections_and_pushes_out_nobody_but_itself() {
    allow_many_files();
    let house = House::new();
    let mut other = house.connect_from(1);
    other.hello();
    let mut crowd: Vec<_> = (0..200).map(|_| house.connect_from(2)).collect();
    house.owner_is_served();
    assert!(house.gate().seats.count() <= 64 + 2 + 64);
    other.hello();
    for caller in &mut crowd[..100] {
        assert!(caller.is_over());
    }
    crowd[199].hello();
}

#[test]
fn when_all_have_proved_the_token_a_newcomer_reads_503() {
    let house = House::with(GateLimits { connections: 3, ..GateLimits::DEFAULT });
    let signed_in = format!("GET /hello HTTP/1.1\r\nHost: a\r\n{}\r\n", bearer());
    let mut owners: Vec<_> = (0..3).map(|_| house.connect()).collect();
    for owner in &mut owners {
        assert_eq!(owner.ask(&signed_in).status, 200);
    }
    let mut newcomer = house.connect();
    let answer = newcomer.ask("GET /hello HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(answer.status == 503 && answer.has("Connection: close") && newcomer.is_over());
    owners.iter_mut().for_each(Caller::hello);
}

#[test]
fn every_mix_of_framings_gets_exactly_one_answer() {
    let house = House::new();
    let smuggled = "GET /hello HTTP/1.1\r\nHost: a\r\n\r\n";
    for fields in [
        "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n",
        "Transfer-Encoding: identity\r\nContent-Length: 4\r\n",
        "Transfer-Encoding: identity\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding : chunked\r\n",
        "Transfer-Encoding:\r\n chunked\r\n",
        "Content-Length: 4\r\nContent-Length: 0\r\n",
        "Content-Length: 4, 0\r\n",
        "Content-Length : 4\r\n",
        "X: y\nTransfer-Encoding: chunked\r\n",
    ] {
        let mut caller = house.connect();
        caller.send(format!(
            "POST /echo HTTP/1.1\r\nHost: a\r\n{fields}\r\n0\r\n\r\n{smuggled}{smuggled}"
        ));
        let answer = caller.answer();
        assert!(matches!(answer.status, 400 | 411), "{fields}: {}", answer.status);
        assert!(caller.is_over(), "{fields}");
    }
    // A response cannot be made chunked by asking for it.
    let answer = house.connect().ask("GET /hello HTTP/1.1\r\nHost: a\r\nTE: chunked\r\n\r\n");
    assert_eq!(answer.text(), "hello");
}

#[test]
fn connect_send_and_reset_seven_hundred_times_is_nothing() {
    let house = House::new();
    for n in 0..700 {
        let mut caller = house.connect_from(n);
        caller.send("GET /big?100000 HTTP/1.1\r\nHost: a\r\n\r\n");
        // Closing with a linger time of zero sends a reset (socket(7)).
        rustix::net::sockopt::set_socket_linger(&caller.stream, Some(Duration::ZERO)).unwrap();
    }
    house.owner_is_served();
    until("everybody has gone", || house.gate().seats.count() == 0);
}

#[test]
fn thirty_two_kept_alive_connections_are_all_served_at_once() {
    let house = House::new();
    let together = Arc::new(std::sync::Barrier::new(32));
    thread::scope(|scope| {
        for _ in 0..32 {
            scope.spawn(|| {
                let mut caller = house.connect();
                together.wait();
                let mut times: Vec<Duration> = (0..200)
                    .map(|_| {
                        let start = Instant::now();
                        caller.hello();
                        start.elapsed()
                    })
                    .collect();
                times.sort();
                // Nagle against delayed ACK would make nearly every one wait for 40 ms; a
                // busy machine delays some.
                assert!(times[50] < Duration::from_millis(40), "{times:?}");
                together.wait();
            });
        }
    });
}

#[test]
fn bodies_and_answers_of_strangers_are_bounded_in_memory() {
    allow_many_files();
    let house = House::new();
    let mut crowd = Vec::new();
    let body = vec![b'x'; 1024 * 1024 - 1];
    for n in 0..40 {
        let mut caller = house.connect_from(n);
        caller.send("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 1048576\r\n\r\n");
        // It may be told to go in the middle of this.
        let _ = caller.stream.write_all(&body);
        crowd.push(caller);
    }
    assert!(house.gate().seats.held() <= 6 * 1024 * 1024);
    house.owner_is_served();
    drop(crowd);
    until("nothing is held", || house.gate().seats.held() == 0);
}
