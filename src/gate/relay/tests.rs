//! Tests of the relay against a scripted other side.

use super::*;
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

fn status(result: Result<Answer, Refusal>) -> u16 {
    result.map_or_else(
        |refusal| refusal.status,
        |answer| {
            assert_eq!(answer.body, b"ok");
            200
        },
    )
}

#[test]
fn a_connection_that_was_closed_while_it_idled_is_opened_again() {
    let (_dir, path, side) = scripted(vec![vec![ANSWER, ANSWER], vec![ANSWER]]);
    let relay = Relay::new(path, PATIENCE);
    assert_eq!(status(relay.exchange(REQUEST, false)), 200);
    assert_eq!(status(relay.exchange(REQUEST, false)), 200);
    // The first script is over once the second connection could be accepted; until
    // then the close may not have been seen.
    closed(&relay);
    assert_eq!(status(relay.exchange(REQUEST, false)), 200);
    side.join().unwrap();
}

#[test]
fn a_request_that_may_have_been_handled_is_not_sent_twice() {
    let cut = &ANSWER[..ANSWER.len() - 1];
    let scripts = vec![vec![ANSWER, cut], vec![b"".as_slice()], vec![ANSWER]];
    let (_dir, path, side) = scripted(scripts);
    let relay = Relay::new(path, PATIENCE);
    assert_eq!(status(relay.exchange(REQUEST, false)), 200);
    assert_eq!(status(relay.exchange(REQUEST, false)), 502);
    assert_eq!(status(relay.exchange(REQUEST, false)), 502);
    assert_eq!(status(relay.exchange(REQUEST, false)), 200);
    side.join().unwrap();
}

#[test]
fn what_is_no_answer_or_too_much_of_one_is_502() {
    let scripts = vec![
        vec![b"nonsense\r\n\r\n".as_slice()],
        vec![b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok and more"],
        vec![b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"],
        vec![b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n"],
    ];
    let count = scripts.len();
    let (_dir, path, side) = scripted(scripts);
    let relay = Relay::new(path, PATIENCE);
    for _ in 0..count {
        assert_eq!(status(relay.exchange(REQUEST, false)), 502);
    }
    side.join().unwrap();
}

#[test]
fn nobody_there_is_503_and_nobody_answering_504() {
    let (dir, path, side) = scripted(vec![]);
    side.join().unwrap();
    let relay = Relay::new(path, PATIENCE);
    assert_eq!(status(relay.exchange(REQUEST, false)), 503);
    let silent = dir.path().join("silent");
    let _listener = UnixListener::bind(&silent).unwrap();
    let relay = Relay::new(silent, Duration::from_millis(50));
    assert_eq!(status(relay.exchange(REQUEST, false)), 504);
    assert!(lock(&relay.line).as_ref().unwrap().is_broken());
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
    let relay = Relay::new(path, PATIENCE);
    thread::scope(|scope| {
        for thread in 0..24 {
            let relay = &relay;
            scope.spawn(move || {
                for round in 0..200 {
                    let number = thread * 1000 + round;
                    let request = format!("GET /{number} HTTP/1.1\r\n\r\n");
                    let answer = relay.exchange(request.as_bytes(), false).unwrap();
                    assert_eq!(answer.body, number.to_string().repeat(3000).as_bytes());
                }
            });
        }
    });
    drop(relay);
    let most = side.join().unwrap();
    assert!(most > 1, "never two requests under way");
}

#[test]
fn a_handler_that_keeps_everybody_waiting_too_long_fails_them_all_and_a_new_line_serves() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("s");
    let listener = UnixListener::bind(&path).unwrap();
    let relay = Relay::new(path, Duration::from_millis(100));
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let status = status(relay.exchange(REQUEST, false));
                assert!(matches!(status, 503 | 504), "{status}");
            });
        }
    });
    let mut lines = Vec::new();
    listener.set_nonblocking(true).unwrap();
    while let Ok((line, _)) = listener.accept() {
        lines.push(line);
    }
    assert!(!lines.is_empty());
    let relay = Relay { patience: PATIENCE, ..relay };
    listener.set_nonblocking(false).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| listener.accept().unwrap().0.write_all(ANSWER).unwrap());
        assert_eq!(status(relay.exchange(REQUEST, false)), 200);
    });
}

/// Waits until the other side has closed the line.
fn closed(relay: &Relay) {
    lock(&relay.line).as_ref().unwrap().wait_for_close();
}
