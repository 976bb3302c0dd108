//! A TCP connection that sends any bytes at all, and reads what comes back.

use super::http::Answer;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

/// A connection; reads give up after its limit.
pub struct RawConn {
    stream: BufReader<TcpStream>,
}

impl RawConn {
    /// Connects, optionally from a chosen address of the machine.
    pub fn open(to: SocketAddr, from: Option<IpAddr>, limit: Duration) -> io::Result<Self> {
        let stream = match from {
            None => TcpStream::connect_timeout(&to, limit)?,
            Some(from) => {
                let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
                let fd = rustix::net::socket_with(
                    family,
                    SocketType::STREAM,
                    SocketFlags::CLOEXEC,
                    None,
                )?;
                rustix::net::bind(&fd, &SocketAddr::new(from, 0))?;
                rustix::net::connect(&fd, &to)?;
                TcpStream::from(fd)
            }
        };
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(limit))?;
        stream.set_write_timeout(Some(limit))?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// Connects with a limit that is longer than any of the gate's.
    #[track_caller]
    pub fn to(address: SocketAddr) -> Self {
        Self::open(address, None, Duration::from_secs(45)).expect("a connection")
    }

    #[track_caller]
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        self.try_send(bytes.as_ref()).expect("the server takes it");
        self
    }

    pub fn try_send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.get_mut().write_all(bytes)
    }

    #[track_caller]
    pub fn answer(&mut self) -> Answer {
        self.try_answer(false).expect("an answer")
    }

    pub fn try_answer(&mut self, to_head: bool) -> io::Result<Answer> {
        Answer::read(&mut self.stream, to_head)
    }

    /// All answers until the server closes the connection.
    #[track_caller]
    pub fn answers(&mut self) -> Vec<Answer> {
        let mut all = Vec::new();
        while self.is_open() {
            all.push(self.answer());
        }
        all
    }

    /// Whether more bytes come (waits for them) or the server has closed.
    pub fn is_open(&mut self) -> bool {
        match self.stream.fill_buf() {
            Ok(bytes) => !bytes.is_empty(),
            Err(e) if e.kind() == io::ErrorKind::ConnectionReset => false,
            Err(e) => panic!("neither bytes nor an end: {e}"),
        }
    }

    /// Panics unless the server closes the connection without another byte.
    #[track_caller]
    pub fn expect_closed(&mut self) {
        assert!(!self.is_open(), "more came: {:?}", self.stream.buffer());
    }

    /// Reads and drops what comes until the end; how many bytes it was.
    pub fn drain(&mut self) -> u64 {
        io::copy(&mut self.stream.by_ref(), &mut io::sink()).unwrap_or(0)
    }

    pub fn set_limit(&mut self, limit: Duration) {
        self.stream.get_ref().set_read_timeout(Some(limit)).expect("a limit");
        self.stream.get_ref().set_write_timeout(Some(limit)).expect("a limit");
    }

    /// Makes the kernel keep little of what we have not read.
    pub fn shrink_receive_buffer(&self) {
        rustix::net::sockopt::set_socket_recv_buffer_size(self.stream.get_ref(), 4096)
            .expect("a buffer size");
    }

    /// Ends the connection by a reset instead of a goodbye.
    pub fn reset(self) {
        let stream = self.stream.into_inner();
        rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).expect("linger");
    }

    /// The stream, when nothing is buffered.
    pub fn into_stream(self) -> TcpStream {
        assert!(self.stream.buffer().is_empty());
        self.stream.into_inner()
    }
}
