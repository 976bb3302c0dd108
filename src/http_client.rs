//! A small HTTP client: one request over a connection, to a server that need not be trusted.
//!
//! The whole exchange has one deadline, however its bytes are spread over it, and what is read
//! has a bound. Nothing is kept, and no chunks are undone: the request asks for neither.

use crate::proc::{is_passing, wait_any};
use rustix::io::{Errno, ioctl_fionbio};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, socket_with};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// Why there is no answer when a request was given up for what its caller waits for besides.
pub const STOPS: &str = "the server stops";

/// Bytes of an answer's first line that are read.
const FIRST_LINE: usize = 256;
/// Bytes of an answer of ours that are read: far above any.
const MOST: usize = 8 << 20;
/// Bytes that are read at once.
const PIECE: usize = 4096;
/// Time between two tries to be heard by a server that is busy.
const FULL: Duration = Duration::from_millis(20);

/// How long an exchange may take, and what ends it before that.
#[derive(Debug, Clone, Copy)]
pub struct Patience<'a> {
    /// The end of it.
    pub until: Instant,
    /// Any of these, once it is readable.
    pub stop: &'a [BorrowedFd<'a>],
}

impl Patience<'_> {
    /// Waits until there is something to read, at most this long.
    fn wait(&self, readable: Option<BorrowedFd<'_>>, at_most: Duration) -> io::Result<()> {
        let left = self.until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::Error::new(ErrorKind::TimedOut, "it did not answer in time"));
        }
        let all: Vec<_> = self.stop.iter().copied().chain(readable).collect();
        wait_any(&all, left.min(at_most))?;
        let stops = !self.stop.is_empty() && wait_any(self.stop, Duration::ZERO)?;
        if stops { Err(io::Error::other(STOPS)) } else { Ok(()) }
    }
}

/// Connects to a Unix socket without waiting for a server that takes no connections any more:
/// when as many wait for it as the kernel keeps, `connect` would wait for ever.
///
/// # Errors
/// When nobody listens there, or nobody takes the connection in time.
fn connect(socket: &Path, patience: &Patience<'_>) -> io::Result<UnixStream> {
    let address = SocketAddrUnix::new(socket)?;
    loop {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let stream = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        match rustix::net::connect(&stream, &address) {
            Ok(()) => return Ok(stream.into()),
            Err(Errno::AGAIN | Errno::INTR) => patience.wait(None, FULL)?,
            Err(error) => return Err(error.into()),
        }
    }
}

/// Asks a server of ours on a Unix socket once; the answer's status, and its body.
///
/// # Errors
/// When there is no answer in time, or one that is not HTTP.
pub fn ask(socket: &Path, request: &str, patience: Patience<'_>) -> io::Result<(u16, Vec<u8>)> {
    let answer = Answer::to(connect(socket, &patience)?, request.as_bytes(), patience)?;
    Ok((answer.status, answer.body(MOST)?))
}

/// An answer, of which the first line has been read.
pub struct Answer<'a, S> {
    /// The HTTP status.
    pub status: u16,
    stream: S,
    bytes: Vec<u8>,
    patience: Patience<'a>,
}

impl<'a, S: Read + Write + AsFd> Answer<'a, S> {
    /// Sends a whole request and waits for the first line of the answer.
    ///
    /// # Errors
    /// When there is none in time, or one that is not HTTP.
    pub fn to(mut stream: S, request: &[u8], patience: Patience<'a>) -> io::Result<Self> {
        ioctl_fionbio(&stream, true)?;
        let mut unsent = request;
        while !unsent.is_empty() {
            match stream.write(unsent) {
                Ok(length) => unsent = &unsent[length..],
                Err(error) if is_passing(&error) => patience.wait(None, FULL)?,
                Err(error) => return Err(error),
            }
        }
        let mut answer = Self { status: 0, stream, bytes: Vec::new(), patience };
        let is_short = |bytes: &[u8]| bytes.len() < FIRST_LINE && !bytes.contains(&b'\n');
        while is_short(&answer.bytes) && answer.read()? {}
        let line = answer.bytes.split(|b| *b == b'\n').next().unwrap_or_default();
        let status = std::str::from_utf8(&line[..line.len().min(FIRST_LINE)]).ok();
        answer.status = status
            .and_then(read_status)
            .ok_or_else(|| io::Error::new(ErrorKind::InvalidData, "its answer was not HTTP"))?;
        Ok(answer)
    }

    /// What follows the head: all of it, or until there are so many bytes of the answer.
    ///
    /// # Errors
    /// When it did not end in time.
    pub fn body(mut self, most: usize) -> io::Result<Vec<u8>> {
        while self.bytes.len() < most && self.read()? {}
        let end = self.bytes.windows(4).position(|bytes| bytes == b"\r\n\r\n");
        Ok(end.map_or_else(Vec::new, |at| self.bytes.split_off(at + 4)))
    }

    /// Takes some of the rest, for a moment, so that the server sees no broken connection.
    pub fn discard(mut self, most: usize, moment: Duration) {
        self.patience.until = self.patience.until.min(Instant::now() + moment);
        let _ = self.body(most);
    }

    /// Reads one piece; whether there may be more.
    fn read(&mut self) -> io::Result<bool> {
        self.patience.wait(Some(self.stream.as_fd()), Duration::MAX)?;
        let mut piece = [0; PIECE];
        match self.stream.read(&mut piece) {
            Ok(length) => {
                self.bytes.extend_from_slice(&piece[..length]);
                Ok(length > 0)
            }
            Err(error) if is_passing(&error) => Ok(true),
            Err(error) => Err(error),
        }
    }
}

/// `HTTP/1.1 200 OK` → 200 (RFC 9112, section 4).
fn read_status(line: &str) -> Option<u16> {
    let rest = line.strip_prefix("HTTP/1.")?;
    rest.split(' ').nth(1)?.trim_end().parse().ok().filter(|status| (100..600).contains(status))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proc::Cancel;
    use std::os::unix::net::UnixListener;
    use std::thread::{JoinHandle, sleep, spawn};

    /// A limit that is not reached.
    const LONG: Duration = Duration::from_secs(600);

    type Served = (UnixStream, JoinHandle<()>);

    /// The client's end of a connection to a server that does this once it is asked.
    fn served(serve: impl FnOnce(&mut UnixStream) + Send + 'static) -> Served {
        let (client, mut server) = UnixStream::pair().unwrap();
        let serves = spawn(move || {
            let _ = server.read(&mut [0; 1024]).unwrap();
            serve(&mut server);
        });
        (client, serves)
    }

    fn asked(
        limit: Duration,
        most: usize,
        serve: impl FnOnce(&mut UnixStream) + Send + 'static,
    ) -> io::Result<(u16, String)> {
        let (client, serves) = served(serve);
        let patience = Patience { until: Instant::now() + limit, stop: &[] };
        let answer = Answer::to(client, b"GET / HTTP/1.0\r\n\r\n", patience);
        let answer = answer.and_then(|answer| Ok((answer.status, answer.body(most)?)));
        serves.join().unwrap();
        answer.map(|(status, body)| (status, String::from_utf8(body).unwrap()))
    }

    /// Sends this and keeps the connection open until the client has gone.
    fn open(bytes: &'static [u8]) -> impl FnOnce(&mut UnixStream) {
        move |stream| {
            // One that has gone already has no need of them.
            let _ = stream.write_all(bytes);
            let _ = stream.read_to_end(&mut Vec::new());
        }
    }

    #[test]
    fn an_answer_is_its_status_and_its_body() {
        let whole = b"HTTP/1.0 404 Not Found\r\nA: b\r\n\r\nno\r\n\r\n!";
        let answer = asked(LONG, 1 << 20, |stream| stream.write_all(whole).unwrap()).unwrap();
        assert_eq!(answer, (404, "no\r\n\r\n!".to_owned()));
        let bounded = asked(LONG, whole.len() - 1, open(whole)).unwrap();
        assert_eq!(bounded.0, 404, "it does not wait for the end");
        let error = asked(LONG, 9, |stream| stream.write_all(b"nonsense!").unwrap()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidData);
    }

    #[test]
    fn statuses_are_read_strictly() {
        assert_eq!(read_status("HTTP/1.1 200 OK\r\n"), Some(200));
        assert_eq!(read_status("HTTP/1.0 404\r\n"), Some(404));
        for bad in ["", "HTTP/2 200", "HTTP/1.1", "HTTP/1.1 2000", "SSH-2.0-x", "HTTP/1.1 abc"] {
            assert_eq!(read_status(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_server_that_is_silent_or_sends_drop_by_drop_is_given_up_on() {
        let silent = [&b""[..], b"HTTP/1.0 2", b"HTTP/1.0 200 OK\r\n\r\n"];
        for bytes in silent {
            let error = asked(Duration::from_millis(50), 1 << 20, open(bytes)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::TimedOut);
        }
        for head in [&b"HTTP/1.0 200 OK\r\n\r\n"[..], b""] {
            let drip = move |stream: &mut UnixStream| {
                stream.write_all(head).unwrap();
                while stream.write_all(b"x").is_ok() {
                    sleep(Duration::from_millis(2));
                }
            };
            let error = asked(Duration::from_millis(200), 1 << 20, drip).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::TimedOut);
        }
    }

    #[test]
    fn a_line_and_a_body_without_end_are_bounded() {
        let flood = |head: &'static [u8]| {
            move |stream: &mut UnixStream| {
                stream.write_all(head).unwrap();
                while stream.write_all(&[b'x'; PIECE]).is_ok() {}
            }
        };
        let error = asked(LONG, 1 << 20, flood(b"")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidData);
        assert_eq!(asked(LONG, 1 << 20, flood(b"HTTP/1.1 200 ")).unwrap(), (200, String::new()));
        let (client, serves) = served(flood(b"HTTP/1.1 503 No\r\n\r\n"));
        let patience = Patience { until: Instant::now() + LONG, stop: &[] };
        let answer = Answer::to(client, b"GET / HTTP/1.0\r\n\r\n", patience).unwrap();
        assert_eq!(answer.status, 503);
        answer.discard(64 << 10, LONG);
        serves.join().unwrap();
    }

    #[test]
    fn a_server_that_takes_no_connections_is_given_up_on() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("socket");
        let listener = UnixListener::bind(&socket).unwrap();
        rustix::net::listen(&listener, 0).unwrap();
        let first = UnixStream::connect(&socket).unwrap();
        let cancel = Cancel::new().unwrap();
        let tried = |limit| {
            let until = Instant::now() + limit;
            connect(&socket, &Patience { until, stop: &[cancel.as_fd()] }).unwrap_err()
        };
        assert_eq!(tried(Duration::from_millis(50)).kind(), ErrorKind::TimedOut);
        cancel.cancel();
        assert_eq!(tried(LONG).to_string(), STOPS);
        drop(first);
    }

    #[test]
    fn a_caller_that_stops_does_not_wait_for_an_answer() {
        let (client, serves) = served(open(b"HTTP/1.0 200"));
        let cancel = Cancel::new().unwrap();
        let stop = [cancel.as_fd()];
        let patience = Patience { until: Instant::now() + LONG, stop: &stop };
        std::thread::scope(|scope| {
            let asks = scope.spawn(move || Answer::to(client, b"x", patience).map(|a| a.status));
            cancel.cancel();
            assert_eq!(asks.join().unwrap().unwrap_err().to_string(), STOPS);
        });
        serves.join().unwrap();
    }
}
