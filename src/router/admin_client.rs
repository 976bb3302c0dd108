//! A small HTTP client for the router's Unix sockets.

use crate::proc::{Cancel, wait_any};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, socket_with};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// Why there is no router at the end.
pub const STOPS: &str = "the server stops";

/// Bytes of an answer that are read; the router's configuration has a hundredth of it.
const MOST: usize = 4 << 20;

/// Time between two tries to be heard by a router that is busy.
const FULL: Duration = Duration::from_millis(20);

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The body, lossy.
    pub body: String,
}

/// Asks once, in the old way that ends with the connection: no chunks, nothing kept.
///
/// # Errors
/// When there is no answer in time or before `stop` is pulled, or one that is not HTTP.
pub fn ask(
    socket: &Path,
    method: &str,
    host: &str,
    path: &str,
    body: &[u8],
    limit: Duration,
    stop: &Cancel,
) -> io::Result<Answer> {
    let until = Instant::now() + limit;
    // The time that is left for a look at the socket, unless the server stops.
    let left = |most: Duration| {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::Error::from(ErrorKind::TimedOut));
        }
        if stop.is_cancelled() {
            return Err(io::Error::other(STOPS));
        }
        Ok(left.min(most))
    };
    let mut stream = connect(socket, || wait_any(&[stop.as_fd()], left(FULL)?))?;
    let head = format!(
        "{method} {path} HTTP/1.0\r\nHost: {host}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n",
        body.len()
    );
    let question = [head.as_bytes(), body].concat();
    let mut unsaid = question.as_slice();
    while !unsaid.is_empty() {
        match stream.write(unsaid) {
            Ok(length) => unsaid = unsaid.get(length..).unwrap_or_default(),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                let _ = wait_any(&[stop.as_fd()], left(FULL)?)?;
            }
            Err(error) => return Err(error),
        }
    }
    let mut bytes = Vec::new();
    let mut piece = [0; 4096];
    while bytes.len() < MOST {
        let _ = wait_any(&[stream.as_fd(), stop.as_fd()], left(limit)?)?;
        let _ = left(limit)?;
        match stream.read(&mut piece) {
            Ok(0) => break,
            Ok(length) => bytes.extend_from_slice(&piece[..length]),
            Err(error)
                if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock) => {}
            Err(error) => return Err(error),
        }
    }
    read(&bytes).ok_or_else(|| io::Error::new(ErrorKind::InvalidData, "the answer was not HTTP"))
}

/// Connects without waiting for a router that takes no connections any more: when as many
/// wait for it as the kernel keeps, `connect` would wait for ever. `wait` is called between
/// two tries.
fn connect(socket: &Path, mut wait: impl FnMut() -> io::Result<bool>) -> io::Result<UnixStream> {
    let address = SocketAddrUnix::new(socket)?;
    loop {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let stream = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        match rustix::net::connect(&stream, &address) {
            Ok(()) => return Ok(stream.into()),
            Err(Errno::AGAIN | Errno::INTR) => wait()?,
            Err(error) => return Err(error.into()),
        };
    }
}

fn read(bytes: &[u8]) -> Option<Answer> {
    let text = String::from_utf8_lossy(bytes);
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.get(..3)?.parse().ok()?;
    Some(Answer { status, body: body.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    fn answered_with(bytes: &'static [u8], limit: Duration) -> io::Result<Answer> {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("socket");
        let listener = UnixListener::bind(&socket).unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut head = [0; 1024];
            let _ = stream.read(&mut head).unwrap();
            stream.write_all(bytes).unwrap();
            // Open until the client has given up, when it has nothing to read to its end.
            if !bytes.ends_with(b"!") {
                let _ = stream.read_to_end(&mut Vec::new());
            }
        });
        let answer = ask(&socket, "GET", "", "/", b"", limit, &Cancel::new().unwrap());
        server.join().unwrap();
        answer
    }

    #[test]
    fn an_answer_is_its_status_and_its_body() {
        let limit = Duration::from_secs(60);
        let answer = answered_with(b"HTTP/1.0 404 Not Found\r\nA: b\r\n\r\nno!", limit).unwrap();
        assert_eq!((answer.status, answer.body.as_str()), (404, "no!"));
        assert!(answered_with(b"nonsense!", limit).is_err());
        let (nowhere, stop) = (Path::new("/nowhere/socket"), Cancel::new().unwrap());
        assert!(ask(nowhere, "GET", "", "/", b"", limit, &stop).is_err());
    }

    #[test]
    fn a_silent_router_is_given_up_on() {
        let error = answered_with(b"HTTP/1.0 200 OK\r\n\r\n", Duration::from_millis(50));
        assert_eq!(error.unwrap_err().kind(), ErrorKind::TimedOut);
    }

    #[test]
    fn a_router_that_takes_no_connections_is_given_up_on() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("socket");
        let listener = UnixListener::bind(&socket).unwrap();
        rustix::net::listen(&listener, 0).unwrap();
        let first = UnixStream::connect(&socket).unwrap();
        let stop = Cancel::new().unwrap();
        let ask = |limit| ask(&socket, "GET", "", "/", b"", limit, &stop).unwrap_err();
        assert_eq!(ask(Duration::from_millis(50)).kind(), ErrorKind::TimedOut);
        stop.cancel();
        assert_eq!(ask(Duration::from_secs(600)).to_string(), "the server stops");
        drop(first);
    }

    #[test]
    fn a_server_that_stops_does_not_wait_for_an_answer() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("socket");
        let _silent = UnixListener::bind(&socket).unwrap();
        let stop = Cancel::new().unwrap();
        stop.cancel();
        let error = ask(&socket, "GET", "", "/", b"", Duration::from_secs(600), &stop).unwrap_err();
        assert_eq!(error.to_string(), "the server stops");
    }
}
