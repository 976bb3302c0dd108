//! Tests of the relay against a scripted other side.

use super::*;
use crate::gate::permit::Seats;
use crate::model::Client;
use rustix::net::sockopt;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixListener;
use std::sync::atomic::{AtomicUsize, Ordering};
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
            assert_eq!(answer.body(), b"ok");
            200
        },
    )
}

#[test]
fn a_connection_that_was_closed_while_it_idled_is_opened_again() {
    let (_dir, path, side) = scripted(vec![vec![ANSWER, ANSWER], vec![ANSWER]]);
    let relay = Relay::new(path, 4, PATIENCE);
    assert_eq!(status(relay.exchange(REQUEST.to_vec(), false, None)), 200);
    assert_eq!(status(relay.exchange(REQUEST.to_vec(), false, None)), 200);
    // The first script is over once the second connection could be accepted; until
    // then the close may not have been seen.
    let line = relay.lock().idle.pop().unwrap();
    assert_eq!((&line).read(&mut [0]).unwrap(), 0);
    relay.lock().idle.push(line);
    assert_eq!(status(relay.exchange(REQUEST.to_vec(), false, None)), 200);
    side.join().unwrap();
}

#[test]
fn a_request_that_may_have_been_handled_is_not_sent_twice() {
    let cut = &ANSWER[..ANSWER.len() - 1];
    let scripts = vec![vec![ANSWER, cut], vec![b"".as_slice()], vec![ANSWER]];
    let (_dir, path, side) = scripted(scripts);
    let relay = Relay::new(path, 1, PATIENCE);
    assert_eq!(status(relay.exchange(REQUEST.to_vec(), false, None)), 200);
    assert_eq!(status(relay.exchange(REQUEST.to_vec(), false, None)), 502);
    assert_eq!(status(relay.exchange(REQUEST.to_vec(), false, None)), 502);
    assert_eq!(status(relay.exchange(REQUEST.to_vec(), false, None)), 200);
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
    let relay = Relay::new(path, 4, PATIENCE);
    for _ in 0..count {
        assert_eq!(status(relay.exchange(REQUEST.to_vec(), false, None)), 502);
    }
    side.join().unwrap();
}

#[test]
fn nobody_there_is_503_and_nobody_answering_504() {
    let (dir, path, side) = scripted(vec![]);
    side.join().unwrap();
    let relay = Relay::new(path, 4, PATIENCE);
    assert_eq!(status(relay.exchange(REQUEST.to_vec(), false, None)), 503);
    let silent = dir.path().join("silent");
    let _listener = UnixListener::bind(&silent).unwrap();
    let relay = Relay::new(silent, 1, Duration::from_millis(50));
    assert_eq!(status(relay.exchange(REQUEST.to_vec(), false, None)), 504);
    assert_eq!(relay.lock().open, 0);
}

#[test]
fn no_more_connections_than_allowed_are_open_and_all_are_served() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("s");
    let listener = UnixListener::bind(&path).unwrap();
    let opened = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&opened);
    let side = thread::spawn(move || {
        let mut served = Vec::new();
        while let Ok((mut stream, _)) = listener.accept() {
            count.fetch_add(1, Ordering::Relaxed);
            served.push(thread::spawn(move || {
                let mut request = vec![0; REQUEST.len()];
                while stream.read_exact(&mut request).is_ok() {
                    stream.write_all(ANSWER).unwrap();
                }
            }));
            if served.len() > 3 {
                break;
            }
        }
        served.into_iter().for_each(|s| s.join().unwrap());
    });
    let relay = Relay::new(path.clone(), 3, PATIENCE);
    thread::scope(|scope| {
        for _ in 0..24 {
            scope.spawn(|| {
                for _ in 0..100 {
                    assert_eq!(status(relay.exchange(REQUEST.to_vec(), false, None)), 200);
                }
            });
        }
    });
    assert!(opened.load(Ordering::Relaxed) <= 3);
    assert!(relay.lock().queue.is_empty() && relay.lock().idle.len() <= 3);
    drop(relay);
    while !side.is_finished() {
        let _ = UnixStream::connect(&path);
    }
    side.join().unwrap();
}

#[test]
fn a_handler_that_kept_everybody_waiting_too_long_leaves_the_queue_in_order() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("s");
    let _listener = UnixListener::bind(&path).unwrap();
    let relay = Relay::new(path, 1, Duration::from_millis(100));
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let status = status(relay.exchange(REQUEST.to_vec(), false, None));
                assert!(matches!(status, 503 | 504), "{status}");
            });
        }
    });
    let pool = relay.lock();
    assert!(pool.queue.is_empty() && pool.idle.is_empty() && pool.open == 0);
}

#[test]
fn a_request_whose_client_has_gone_is_not_handled_any_more() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("s");
    let listener = UnixListener::bind(&path).unwrap();
    let relay = Relay::new(path, 1, PATIENCE);
    let seats = Seats::new(1, 1, 1);
    let public = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(public.local_addr().unwrap()).unwrap();
    let (ours, peer) = public.accept().unwrap();
    let permit = seats.admit(ours, Client::of(peer.ip()), true).ok().unwrap();
    thread::scope(|scope| {
        let first = scope.spawn(|| status(relay.exchange(REQUEST.to_vec(), false, None)));
        let (mut line, _) = listener.accept().unwrap();
        line.read_exact(&mut vec![0; REQUEST.len()]).unwrap();
        let presence = permit.presence();
        let second =
            scope.spawn(|| status(relay.exchange(REQUEST.to_vec(), false, Some(presence))));
        wait_until(|| relay.lock().queue.len() == 1);
        // Who has only nothing more to send is still there.
        client.shutdown(Shutdown::Write).unwrap();
        assert!(!permit.presence().has_gone());
        sockopt::set_socket_linger(&client, Some(Duration::ZERO)).unwrap();
        drop(client);
        wait_until(|| permit.presence().has_gone());
        line.write_all(ANSWER).unwrap();
        assert_eq!((first.join().unwrap(), second.join().unwrap()), (200, 503));
        drop(relay.lock().idle.pop());
        // The end of the connection, and no second request before it.
        assert_eq!(line.read(&mut [0]).unwrap(), 0);
    });
}

fn wait_until(condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE);
        thread::yield_now();
    }
}
