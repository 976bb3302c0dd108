//! The client's socket: for the event loop without waiting, for a worker with
//! deadlines that a dripping client cannot stretch.

use super::refusal::Refusal;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags, recv, sendmsg, sockopt};
use std::io::{self, IoSlice};
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsFd;
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

/// Sends head and body as one, as much of them as the kernel takes at once; gives what
/// it did not take.
pub(super) fn send_now(stream: &TcpStream, head: &[u8], body: &[u8]) -> Result<Vec<u8>, Stop> {
    let slices = [IoSlice::new(head), IoSlice::new(body)];
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    let taken = loop {
        match sendmsg(stream, &slices, &mut SendAncillaryBuffer::default(), flags) {
            Ok(taken) => break taken,
            Err(Errno::AGAIN) => break 0,
            Err(Errno::INTR) => {}
            Err(_) => return Err(Stop::Quiet),
        }
    };
    let of_body = taken.saturating_sub(head.len());
    Ok([&head[taken.min(head.len())..], &body[of_body..]].concat())
}

/// Sends everything, or gives up on a client that makes no progress within the socket's
/// write timeout.
pub(super) fn send(stream: &TcpStream, mut bytes: &[u8]) -> Result<(), Stop> {
    while !bytes.is_empty() {
        match rustix::net::send(stream, bytes, SendFlags::NOSIGNAL) {
            Ok(sent) => bytes = &bytes[sent..],
            Err(Errno::INTR) => {}
            // No progress for too long, or the client has gone.
            Err(_) => return Err(Stop::Quiet),
        }
    }
    Ok(())
}

/// Reads what is there, or waits for it. Zero bytes are the client's end.
///
/// # Errors
/// [`Errno::AGAIN`] when nothing has come by `until`.
pub(super) fn read(stream: &TcpStream, into: &mut [u8], until: Instant) -> Result<usize, Errno> {
    loop {
        let wait = until.saturating_duration_since(Instant::now());
        if wait.is_zero() {
            return Err(Errno::AGAIN);
        }
        stream.set_read_timeout(Some(wait)).map_err(|_| Errno::IO)?;
        match recv(stream, &mut *into, RecvFlags::empty()) {
            Err(Errno::INTR) => {}
            result => return result.map(|(n, _)| n),
        }
    }
}

/// Closes so that a client which is still sending can read the last answer: a
/// socket closed with unread bytes resets the connection, and a reset destroys
/// what the client has not read yet (RFC 9112, 9.6).
pub(super) fn linger(stream: &TcpStream, at_most: Duration) {
    if stream.shutdown(Shutdown::Write).is_err() {
        return;
    }
    let until = Instant::now() + at_most;
    let mut trash = vec![0; LINGER_STEP];
    let mut thrown = 0;
    while thrown < MAX_LINGER {
        match read(stream, &mut trash, until) {
            Ok(n) if n > 0 => thrown += n,
            _ => return,
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
