//! The client's socket: what is sent without waiting, and how it is closed, within a time that
//! a dripping client cannot stretch.

use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendFlags, sendmsg, sockopt};
use std::io::{self, ErrorKind, IoSlice, Read as _};
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

/// Prepares a listener's sockets, which inherit this from it (so Linux does it), or a
/// socket by itself: small answers leave at once, and the kernel keeps little.
pub(super) fn prepare(socket: impl AsFd) -> io::Result<()> {
    sockopt::set_tcp_nodelay(&socket, true)?;
    Ok(sockopt::set_socket_send_buffer_size(&socket, SEND_BUFFER)?)
}

/// Sends head and body as one, as much of them as the kernel takes at once; gives what
/// it did not take.
pub(super) fn send_now(stream: &TcpStream, head: &[u8], body: &[u8]) -> io::Result<Vec<u8>> {
    let slices = [IoSlice::new(head), IoSlice::new(body)];
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    let taken = match sendmsg(stream, &slices, &mut SendAncillaryBuffer::default(), flags) {
        Err(Errno::AGAIN | Errno::INTR) => 0,
        result => result?,
    };
    let of_body = taken.saturating_sub(head.len());
    Ok([&head[taken.min(head.len())..], &body[of_body..]].concat())
}

/// Closes so that a client which is still sending can read the last answer: a
/// socket closed with unread bytes resets the connection, and a reset destroys
/// what the client has not read yet (RFC 9112, 9.6).
pub(super) fn linger(mut stream: &TcpStream, at_most: Duration) {
    let until = Instant::now() + at_most;
    let _ = stream.shutdown(Shutdown::Write);
    let mut trash = vec![0; LINGER_STEP];
    let mut thrown = 0;
    // The time to wait ends when there is none left: then it cannot be set.
    while thrown < MAX_LINGER
        && stream.set_read_timeout(Some(until.saturating_duration_since(Instant::now()))).is_ok()
    {
        match stream.read(&mut trash) {
            Ok(read @ 1..) => thrown += read,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            _ => return,
        }
    }
}
