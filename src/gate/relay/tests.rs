//! Tests of the relay against a scripted other side.

use super::*;
use crate::gate::poll::Event;
use rustix::event::{PollFd, PollFlags, poll};
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixListener;
use std::thread::{self, JoinHandle};
use tempfile::TempDir;

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const PATIENCE: Duration = Duration::from_secs(20);

/// Accepts one connection after the other; each follows its own script: for each
/// request the bytes to answer with. At the script's end it is closed.
fn scripted(scripts: Vec<Vec<&'static [u8]>>) -> (TempDir, PathBuf, JoinHandle<()>) {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("s");
    let listener = UnixListener::bind(&path).unwrap();
    let side = thread::spawn(move || {
        for script in scripts {
            let mut stream = listener.accept().unwrap().0;
            for answer in script {
                let mut request = vec![0; REQUEST.len()];
                stream.read_exact(&mut request).unwrap();
                assert_eq!(request, REQUEST);
                stream.write_all(answer).unwrap();
            }
        }
    });
    (dir, path, side)
}

/// A relay, with what the event loop does for it.
struct Driven {
    relay: Relay,
    poll: Poll,
    events: Vec<Event>,
    next: u64,
}

impl Driven {
    fn new(path: PathBuf, patience: Duration) -> Self {
        let relay = Relay::new(path, 1, patience);
        Self { relay, poll: Poll::new().unwrap(), events: Vec::new(), next: 0 }
    }

    fn push(&mut self, request: &[u8]) -> u64 {
        self.next += 1;
        self.relay.push(self.next, request.to_vec(), false, Instant::now());
        self.next
    }

    /// One round; gives the ids and bodies of the answers, or the status instead.
    fn round(&mut self, wait: bool) -> Vec<(u64, Result<Vec<u8>, u16>)> {
        let until = if wait { self.relay.deadline() } else { Some(Instant::now()) };
        self.relay.send(&self.poll);
        if !self.relay.is_ready() && self.relay.lost.is_empty() {
            self.poll.wait(until, &mut self.events);
        }
        for event in std::mem::take(&mut self.events) {
            self.relay.note(event.flags);
        }
        self.relay.expire(Instant::now());
        let inbox = self.relay.receive();
        let (mut used, mut out) = (0, Vec::new());
        while let Some(answer) = self.relay.next_answer(&inbox[used..]) {
            let body = inbox[used + answer.head.received..used + answer.whole].to_vec();
            out.push((answer.id, Ok(body)));
            used += answer.whole;
        }
        self.relay.give_back(inbox, used);
        out.extend(self.relay.take_lost().into_iter().map(|(id, r)| (id, Err(r.status))));
        out
    }

    fn exchange(&mut self, request: &[u8]) -> u16 {
        let id = self.push(request);
        loop {
            if let Some((of, result)) = self.round(true).pop() {
                assert_eq!(of, id);
                return result.map_or_else(|status| status, |body| (body == b"ok").into());
            }
        }
    }

    /// Waits until the other side has closed.
    fn wait_for_close(&mut self) {
        while self.relay.stream.is_some() {
            if !self.relay.is_ready() {
                self.poll.wait(None, &mut self.events);
            }
            for event in std::mem::take(&mut self.events) {
                self.relay.note(event.flags);
            }
            let inbox = self.relay.receive();
            self.relay.give_back(inbox, 0);
        }
    }
}

/// What [`Driven::exchange`] gives for the answer that was scripted.
const OK: u16 = 1;

#[test]
fn a_connection_that_was_closed_while_it_idled_is_opened_again() {
    for noticed in [true, false] {
        let (_dir, path, side) = scripted(vec![vec![ANSWER, ANSWER], vec![ANSWER]]);
        let mut relay = Driven::new(path, PATIENCE);
        assert_eq!(relay.exchange(REQUEST), OK);
        assert_eq!(relay.exchange(REQUEST), OK);
        // Either way the other side has closed before the request is sent.
        if noticed {
            relay.wait_for_close();
        } else {
            let stream = relay.relay.stream.as_ref().unwrap();
            let mut fds = [PollFd::new(stream, PollFlags::RDHUP)];
            assert_eq!(poll(&mut fds, None), Ok(1));
        }
        assert_eq!(relay.exchange(REQUEST), OK);
        side.join().unwrap();
    }
}

#[test]
fn a_request_that_may_have_been_handled_is_not_sent_twice() {
    let cut = &ANSWER[..ANSWER.len() - 1];
    let scripts = vec![vec![ANSWER, cut], vec![b"".as_slice()], vec![ANSWER]];
    let (_dir, path, side) = scripted(scripts);
    let mut relay = Driven::new(path, PATIENCE);
    assert_eq!(relay.exchange(REQUEST), OK);
    assert_eq!(relay.exchange(REQUEST), 502);
    assert_eq!(relay.exchange(REQUEST), 502);
    assert_eq!(relay.exchange(REQUEST), OK);
    side.join().unwrap();
}

#[test]
fn what_is_no_answer_or_too_much_of_one_is_502() {
    let scripts = vec![
        vec![b"nonsense\r\n\r\n".as_slice()],
        vec![b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"],
        vec![b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n"],
        vec![b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"],
    ];
    let count = scripts.len();
    let (_dir, path, side) = scripted(scripts);
    let mut relay = Driven::new(path, PATIENCE);
    for _ in 0..count {
        assert_eq!(relay.exchange(REQUEST), 502);
    }
    side.join().unwrap();
}

#[test]
fn more_than_was_asked_for_ends_the_line_and_not_the_next_request() {
    let more = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok and more".as_slice();
    let (_dir, path, side) = scripted(vec![vec![more], vec![ANSWER]]);
    let mut relay = Driven::new(path, PATIENCE);
    assert_eq!(relay.exchange(REQUEST), OK);
    assert!(relay.relay.stream.is_none());
    assert_eq!(relay.exchange(REQUEST), OK);
    side.join().unwrap();
}

#[test]
fn nobody_there_is_503_and_nobody_answering_504() {
    let (dir, path, side) = scripted(vec![]);
    side.join().unwrap();
    assert_eq!(Driven::new(path, PATIENCE).exchange(REQUEST), 503);
    let silent = dir.path().join("silent");
    let _listener = UnixListener::bind(&silent).unwrap();
    let mut relay = Driven::new(silent, Duration::from_millis(50));
    assert_eq!(relay.exchange(REQUEST), 504);
    assert!(relay.relay.stream.is_none());
}

/// Answers each request with the number in its path, as often as asked, over one
/// connection, and as late as it can: many requests are under way at once.
fn counting() -> (TempDir, PathBuf, JoinHandle<usize>) {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("s");
    let listener = UnixListener::bind(&path).unwrap();
    let side = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let (mut seen, mut most) = (Vec::new(), 0);
        let mut piece = [0; 65536];
        loop {
            let read = stream.read(&mut piece).unwrap();
            if read == 0 {
                return most;
            }
            seen.extend_from_slice(&piece[..read]);
            let mut under_way = 0;
            while let Some(end) = seen.windows(4).position(|w| w == b"\r\n\r\n") {
                let request: Vec<u8> = seen.drain(..end + 4).collect();
                let number = request[5..].split(|b| *b == b' ').next().unwrap();
                let body = number.repeat(3000);
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
                stream.write_all(head.as_bytes()).unwrap();
                stream.write_all(&body).unwrap();
                under_way += 1;
            }
            most = most.max(under_way);
        }
    });
    (dir, path, side)
}

#[test]
fn everybody_gets_the_answer_to_his_own_request() {
    let (_dir, path, side) = counting();
    let mut relay = Driven::new(path, PATIENCE);
    let mut under_way = std::collections::HashMap::new();
    let (mut asked, mut answered) = (0, 0);
    while answered < 4000 {
        while asked < 4000 && under_way.len() < 24 {
            let request = format!("GET /{asked} HTTP/1.1\r\n\r\n");
            under_way.insert(relay.push(request.as_bytes()), asked);
            asked += 1;
        }
        for (id, body) in relay.round(true) {
            let number = under_way.remove(&id).unwrap();
            assert_eq!(body.unwrap(), number.to_string().repeat(3000).as_bytes());
            answered += 1;
        }
    }
    drop(relay);
    let most = side.join().unwrap();
    assert!(most > 1, "never two requests under way");
}

#[test]
fn a_handler_that_keeps_everybody_waiting_too_long_fails_them_all_and_a_new_line_serves() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("s");
    let listener = UnixListener::bind(&path).unwrap();
    let mut relay = Driven::new(path, Duration::from_millis(100));
    let ids: Vec<u64> = (0..4).map(|_| relay.push(REQUEST)).collect();
    let mut lost = Vec::new();
    while lost.len() < ids.len() {
        lost.extend(relay.round(true));
    }
    assert_eq!(lost, ids.iter().map(|&id| (id, Err(504))).collect::<Vec<_>>());
    drop(listener.accept().unwrap());
    relay.relay.patience = PATIENCE;
    let side = thread::spawn(move || {
        let mut line = listener.accept().unwrap().0;
        line.read_exact(&mut [0; REQUEST.len()]).unwrap();
        line.write_all(ANSWER).unwrap();
    });
    assert_eq!(relay.exchange(REQUEST), OK);
    side.join().unwrap();
}

#[test]
fn a_long_request_and_a_long_answer_do_not_wait_for_each_other() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("s");
    let listener = UnixListener::bind(&path).unwrap();
    let request = vec![b'x'; 1024 * 1024];
    let side = thread::spawn(move || {
        let mut line = listener.accept().unwrap().0;
        // Answers at length before it has read anything.
        let head = b"HTTP/1.1 200 OK\r\nContent-Length: 5000000\r\n\r\n";
        line.write_all(head).unwrap();
        line.write_all(&vec![b'y'; 5_000_000]).unwrap();
        line.read_exact(&mut vec![0; 1024 * 1024]).unwrap();
        line.read_exact(&mut [0; REQUEST.len()]).unwrap();
        line.write_all(ANSWER).unwrap();
    });
    let mut relay = Driven::new(path, PATIENCE);
    let (long, short) = (relay.push(&request), relay.push(REQUEST));
    let mut answers = Vec::new();
    while answers.len() < 2 {
        answers.extend(relay.round(true));
    }
    assert_eq!(answers[0], (long, Ok(vec![b'y'; 5_000_000])));
    assert_eq!(answers[1], (short, Ok(b"ok".to_vec())));
    assert!(!relay.relay.asked_for_room);
    side.join().unwrap();
}
