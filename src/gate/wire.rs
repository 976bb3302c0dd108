//! The client's socket: for the event loop without waiting, for a worker with
//! deadlines that a dripping client cannot stretch.

use super::admission::Permit;
use super::refusal::Refusal;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags, recv, sendmsg, sockopt};
use std::io::{self, IoSlice};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

/// The kernel's send buffer for one client, in bytes (Linux doubles it). Fixed, so
/// that 512 clients who do not read cannot fill the kernel's memory, and so that
/// "no progress" means less than about 80 KiB in the time allowed: the kernel
/// reports room only when a third of the buffer is free.
const SEND_BUFFER: usize = 128 * 1024;

/// Bytes that a lingering close throws away before it gives up on the client.
const MAX_LINGER: usize = 64 * 1024 * 1024;

/// Bytes that it throws away at once.
const LINGER_STEP: usize = 16 * 1024;

/// Why a connection does not go on.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// The client has gone, was told to go, or nothing came on an idle connection.
    Quiet,
    /// The client gets this answer first.
    Refuse(Refusal),
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Self::Refuse(refusal)
    }
}

/// Prepares a listener's sockets, which inherit this from it (so Linux does it), or a
/// socket by itself: small answers leave at once, and the kernel keeps little.
pub(super) fn prepare(socket: impl AsFd) -> io::Result<()> {
    sockopt::set_tcp_nodelay(&socket, true)?;
    Ok(sockopt::set_socket_send_buffer_size(&socket, SEND_BUFFER)?)
}

/// Sends these pieces as one, as much of them as the kernel takes at once; gives what
/// it did not take.
pub(super) fn send_now(stream: &TcpStream, pieces: [&[u8]; 3]) -> Result<Vec<u8>, Stop> {
    let slices = pieces.map(IoSlice::new);
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    let mut taken = loop {
        match sendmsg(stream, &slices, &mut SendAncillaryBuffer::default(), flags) {
            Ok(taken) => break taken,
            Err(Errno::AGAIN) => break 0,
            Err(Errno::INTR) => {}
            Err(_) => return Err(Stop::Quiet),
        }
    };
    let total: usize = pieces.iter().map(|piece| piece.len()).sum();
    let mut rest = Vec::with_capacity(total - taken);
    for piece in pieces {
        let of_this = taken.min(piece.len());
        rest.extend_from_slice(&piece[of_this..]);
        taken -= of_this;
    }
    Ok(rest)
}

/// The client's end of a connection.
pub(super) struct Wire<'p> {
    stream: &'p TcpStream,
    /// The read timeout that the kernel has, so that it is told changes only.
    timeout: Duration,
}

impl<'p> Wire<'p> {
    /// For a socket that was [`prepare`]d. `stall` is how long a write may make no
    /// progress.
    pub fn new(permit: &'p Permit, stall: Duration) -> Result<Self, Stop> {
        let stream = permit.stream();
        stream.set_write_timeout(Some(stall)).map_err(|_| Stop::Quiet)?;
        Ok(Self { stream, timeout: Duration::ZERO })
    }

    fn wait_at_most(&mut self, wait: Duration) -> Result<(), Errno> {
        if wait.is_zero() {
            return Err(Errno::AGAIN);
        }
        if wait != self.timeout {
            self.stream.set_read_timeout(Some(wait)).map_err(|_| Errno::IO)?;
            self.timeout = wait;
        }
        Ok(())
    }

    /// Reads what is there, or waits for it. Zero bytes are the client's end.
    ///
    /// # Errors
    /// [`Errno::AGAIN`] when nothing came within `wait`.
    pub fn read_slice(&mut self, into: &mut [u8], wait: Duration) -> Result<usize, Errno> {
        self.wait_at_most(wait)?;
        loop {
            match recv(self.stream, &mut *into, RecvFlags::empty()) {
                Err(Errno::INTR) => {}
                result => return result.map(|(n, _)| n),
            }
        }
    }

    /// Sends everything, or gives up on a client that makes no progress.
    pub fn send(&self, mut bytes: &[u8]) -> Result<(), Stop> {
        while !bytes.is_empty() {
            match rustix::net::send(self.stream, bytes, SendFlags::NOSIGNAL) {
                Ok(sent) => bytes = &bytes[sent..],
                Err(Errno::INTR) => {}
                // No progress for too long, or the client has gone.
                Err(_) => return Err(Stop::Quiet),
            }
        }
        Ok(())
    }

    /// The socket, for what the kernel does by itself.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }

    /// Closes so that a client which is still sending can read the last answer: a
    /// socket closed with unread bytes resets the connection, and a reset destroys
    /// what the client has not read yet (RFC 9112, 9.6).
    pub fn linger(&mut self, at_most: Duration) {
        if self.stream.shutdown(Shutdown::Write).is_err() {
            return;
        }
        let until = Instant::now() + at_most;
        let mut trash = vec![0; LINGER_STEP];
        let mut thrown = 0;
        while thrown < MAX_LINGER {
            match self.read_slice(&mut trash, until.saturating_duration_since(Instant::now())) {
                Ok(n) if n > 0 => thrown += n,
                _ => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn a_connection_has_what_its_listener_was_prepared_with() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        prepare(&listener).unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        assert!(accepted.nodelay().unwrap());
        // The kernel doubles what it is told (socket(7)).
        assert_eq!(sockopt::socket_send_buffer_size(&accepted).unwrap(), 2 * SEND_BUFFER);
    }
}
