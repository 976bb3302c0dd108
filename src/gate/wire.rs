//! The client's socket, with deadlines that a dripping client cannot stretch.

use super::permit::Permit;
use super::refusal::Refusal;
use rustix::buffer::spare_capacity;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags, recv, sendmsg, sockopt};
use std::io::IoSlice;
use std::net::{Shutdown, TcpStream};
use std::os::fd::BorrowedFd;
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

/// The client's end of a connection.
pub(super) struct Wire<'p> {
    stream: &'p TcpStream,
    /// The read timeout that the kernel has, so that it is told changes only.
    timeout: Duration,
}

impl<'p> Wire<'p> {
    /// Prepares a fresh socket. `stall` is how long a write may make no progress.
    pub fn new(permit: &'p Permit, stall: Duration) -> Result<Self, Stop> {
        let stream = permit.stream();
        stream
            .set_nodelay(true)
            .and_then(|()| stream.set_write_timeout(Some(stall)))
            .map_err(|_| Stop::Quiet)?;
        sockopt::set_socket_send_buffer_size(stream, SEND_BUFFER).map_err(|_| Stop::Quiet)?;
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

    /// Reads what is there into the vector's spare capacity, which must not be
    /// empty. Zero bytes are the client's end.
    ///
    /// # Errors
    /// [`Errno::AGAIN`] when nothing came within `wait`.
    pub fn read(&mut self, into: &mut Vec<u8>, wait: Duration) -> Result<usize, Errno> {
        self.wait_at_most(wait)?;
        loop {
            match recv(self.stream, spare_capacity(into), RecvFlags::empty()) {
                Err(Errno::INTR) => {}
                result => return result.map(|(n, _)| n),
            }
        }
    }

    /// Like [`Wire::read`], but never more than the slice holds.
    pub fn read_slice(&mut self, into: &mut [u8], wait: Duration) -> Result<usize, Errno> {
        self.wait_at_most(wait)?;
        loop {
            match recv(self.stream, &mut *into, RecvFlags::empty()) {
                Err(Errno::INTR) => {}
                result => return result.map(|(n, _)| n),
            }
        }
    }

    /// Sends two pieces as one. `before_waiting` is called when the kernel does not
    /// take everything at once.
    pub fn send(
        &self,
        first: &[u8],
        second: &[u8],
        before_waiting: impl FnOnce(),
    ) -> Result<(), Stop> {
        let mut before_waiting = Some(before_waiting);
        let mut flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        let (mut first, mut second) = (first, second);
        while !(first.is_empty() && second.is_empty()) {
            let pieces = [IoSlice::new(first), IoSlice::new(second)];
            let pieces = if first.is_empty() { &pieces[1..] } else { &pieces[..] };
            match sendmsg(self.stream, pieces, &mut SendAncillaryBuffer::default(), flags) {
                Ok(sent) => {
                    let of_first = sent.min(first.len());
                    first = &first[of_first..];
                    second = &second[sent - of_first..];
                }
                Err(Errno::AGAIN) if before_waiting.is_some() => {
                    before_waiting.take().into_iter().for_each(|tell| tell());
                    flags = SendFlags::NOSIGNAL;
                }
                Err(Errno::INTR) => {}
                // No progress for too long, or the client has gone.
                Err(_) => return Err(Stop::Quiet),
            }
        }
        Ok(())
    }

    /// The socket, for what the kernel does by itself.
    pub fn fd(&self) -> BorrowedFd<'_> {
        std::os::fd::AsFd::as_fd(self.stream)
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
