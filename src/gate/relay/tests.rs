//! Tests of the relay against a scripted other side.

use super::*;
use crate::gate::poll::Event;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixListener;
use std::thread;
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(20);
const TOKEN: u64 = 1;

/// A relay, with what the event loop does for it, and the socket it leads to.
struct Driven {
    relay: Relay,
    poll: Poll,
    listener: UnixListener,
    _dir: TempDir,
}

impl Driven {
    fn new(patience: Duration) -> Self {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        let relay = Relay::new(path, TOKEN, patience);
        Self { relay, poll: Poll::new().unwrap(), listener, _dir: dir }
    }

    /// Waits for one round of events, and sends.
    fn round(&mut self) -> Result<(), Refusal> {
        let mut events: Vec<Event> = Vec::new();
        self.poll.wait(Some(Instant::now() + PATIENCE), &mut events);
        events.iter().try_for_each(|event| self.relay.note(event.flags, &self.poll))?;
        self.relay.send(&self.poll)
    }

    fn push(&mut self, connection: u64, number: u64, request: &[u8]) {
        self.relay.push(connection, number, request, Instant::now());
    }
}

#[test]
fn each_answer_finds_its_own_connection_in_whatever_order_they_come() {
    let mut driven = Driven::new(PATIENCE);
    for n in 0..100 {
        driven.push(1000 + n, n, b"GET / HTTP/1.1\r\n\r\n");
    }
    driven.relay.send(&driven.poll).unwrap();
    for n in (0..100).rev() {
        assert_eq!(driven.relay.answered(n), Some(1000 + n));
        assert_eq!(driven.relay.answered(n), None, "one answer each");
    }
    assert_eq!(driven.relay.deadline(), None);
}

#[test]
fn a_request_larger_than_the_sockets_buffer_arrives_whole_and_in_order() {
    let mut driven = Driven::new(PATIENCE);
    let long: Vec<u8> = (0..5_000_000_u32).map(|n| (n % 251) as u8).collect();
    driven.push(1, 1, &long);
    driven.push(2, 2, b"the next");
    driven.relay.send(&driven.poll).unwrap();
    assert!(driven.relay.blocked, "nobody reads yet");
    let (mut line, _) = driven.listener.accept().unwrap();
    let whole = [&long[..], b"the next"].concat();
    let reader = thread::spawn(move || {
        let mut read = vec![0; whole.len()];
        line.read_exact(&mut read).unwrap();
        assert!(read == whole);
        line
    });
    while !driven.relay.outbox.is_empty() {
        driven.round().unwrap();
    }
    assert!(driven.relay.outbox.capacity() <= KEPT, "the memory is given back");
    drop(reader.join().unwrap());
}

#[test]
fn a_line_that_was_closed_or_says_something_is_given_up_and_a_new_one_serves() {
    for words in [b"".as_slice(), b"HTTP/1.1 500 Internal Server Error\r\n\r\n"] {
        let mut driven = Driven::new(PATIENCE);
        driven.push(1, 1, b"x");
        driven.push(2, 2, b"y");
        driven.relay.send(&driven.poll).unwrap();
        let (mut line, _) = driven.listener.accept().unwrap();
        line.read_exact(&mut [0; 2]).unwrap();
        line.write_all(words).unwrap();
        drop(line);
        let refusal = loop {
            if let Err(refusal) = driven.round() {
                break refusal;
            }
        };
        assert_eq!(refusal, Refusal::BAD_ANSWER);
        assert_eq!(driven.relay.give_up(), [1, 2]);
        assert_eq!(driven.relay.answered(1), None, "it has another answer by now");
        driven.push(3, 3, b"z");
        driven.relay.send(&driven.poll).unwrap();
        let (mut line, _) = driven.listener.accept().unwrap();
        let mut read = [0; 1];
        line.read_exact(&mut read).unwrap();
        assert_eq!(&read, b"z", "nothing is sent twice");
    }
}

#[test]
fn nobody_there_is_503_and_who_waits_in_vain_is_late() {
    let mut driven = Driven::new(Duration::ZERO);
    driven.push(1, 1, b"x");
    driven.push(2, 2, b"y");
    driven.relay.send(&driven.poll).unwrap();
    let now = Instant::now();
    assert!(driven.relay.is_late(now));
    assert_eq!(driven.relay.give_up(), [1, 2]);
    assert_eq!((driven.relay.is_late(now), driven.relay.answered(1)), (false, None));
    let mut nobody = Driven::new(PATIENCE);
    std::fs::remove_file(nobody._dir.path().join("s")).unwrap();
    nobody.push(1, 1, b"x");
    assert_eq!(nobody.relay.send(&nobody.poll), Err(Refusal::NO_ANSWER));
    assert_eq!(nobody.relay.give_up(), [1]);
}

#[test]
fn what_was_sent_takes_no_memory_though_the_line_is_never_empty() {
    let mut driven = Driven::new(PATIENCE);
    let request = vec![b'x'; 16 << 10];
    driven.push(1, 1, &vec![b'x'; 1 << 20]);
    driven.relay.send(&driven.poll).unwrap();
    let (mut line, _) = driven.listener.accept().unwrap();
    for n in 2..2000 {
        driven.push(n, n, &request);
        line.read_exact(&mut vec![0; request.len()]).unwrap();
        driven.relay.note(EventFlags::OUT, &driven.poll).unwrap();
        driven.relay.send(&driven.poll).unwrap();
        assert!(driven.relay.blocked && driven.relay.outbox.capacity() < 8 << 20, "{n}");
        driven.relay.answered(n);
    }
}
