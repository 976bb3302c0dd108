//! Tests of the relay against a scripted other side.

use super::*;
use crate::gate::poll::Event;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixListener;
use std::thread;
use std::time::{Duration, Instant};
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
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        let relay = Relay::new(path, TOKEN);
        Self { relay, poll: Poll::new().unwrap(), listener, _dir: dir }
    }

    /// Waits for one round of events, and sends.
    fn round(&mut self) -> Result<(), Refusal> {
        let mut events: Vec<Event> = Vec::new();
        self.poll.wait(Some(Instant::now() + PATIENCE), &mut events);
        events.iter().try_for_each(|event| self.relay.note(event.flags, &self.poll))?;
        self.relay.send(&self.poll)
    }
}

#[test]
fn a_request_larger_than_the_sockets_buffer_arrives_whole_and_in_order() {
    let mut driven = Driven::new();
    let long: Vec<u8> = (0..5_000_000_u32).map(|n| (n % 251) as u8).collect();
    driven.relay.push(&long);
    driven.relay.push(b"the next");
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
        let mut driven = Driven::new();
        driven.relay.push(b"x");
        driven.relay.push(b"y");
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
        driven.relay.give_up();
        driven.relay.push(b"z");
        driven.relay.send(&driven.poll).unwrap();
        let (mut line, _) = driven.listener.accept().unwrap();
        let mut read = [0; 1];
        line.read_exact(&mut read).unwrap();
        assert_eq!(&read, b"z", "nothing is sent twice");
    }
}

#[test]
fn nobody_there_is_503() {
    let mut nobody = Driven::new();
    std::fs::remove_file(nobody._dir.path().join("s")).unwrap();
    nobody.relay.push(b"x");
    assert_eq!(nobody.relay.send(&nobody.poll), Err(Refusal::NO_ANSWER));
}

#[test]
fn what_was_sent_takes_no_memory_though_the_line_is_never_empty() {
    let mut driven = Driven::new();
    let request = vec![b'x'; 16 << 10];
    driven.relay.push(&vec![b'x'; 1 << 20]);
    driven.relay.send(&driven.poll).unwrap();
    let (mut line, _) = driven.listener.accept().unwrap();
    for n in 2..2000 {
        driven.relay.push(&request);
        line.read_exact(&mut vec![0; request.len()]).unwrap();
        driven.relay.note(EventFlags::OUT, &driven.poll).unwrap();
        driven.relay.send(&driven.poll).unwrap();
        assert!(driven.relay.blocked && driven.relay.outbox.capacity() < 8 << 20, "{n}");
    }
}
