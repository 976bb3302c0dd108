//! A session's socket, which counts what it sends.

use rustix::net::sockopt::set_socket_send_buffer_size;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd};

/// Bytes that the kernel may hold back for one peer. Left alone it would keep
/// some 4 MiB for each that does not read.
const SEND_BUFFER: usize = 64 * 1024;

/// A socket that never blocks.
pub(super) struct Wire {
    stream: TcpStream,
    /// Bytes sent so far: how a session sees that its peer still takes some.
    pub sent: u64,
}

impl Wire {
    pub(super) fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        set_socket_send_buffer_size(&stream, SEND_BUFFER)?;
        Ok(Self { stream, sent: 0 })
    }

    pub(super) fn stream(&self) -> &TcpStream {
        &self.stream
    }
}

impl AsFd for Wire {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

impl Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.read(buffer)
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let sent = self.stream.write(bytes)?;
        self.sent += sent as u64;
        Ok(sent)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
