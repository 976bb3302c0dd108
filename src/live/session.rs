//! One session: sends what its feed has, answers pings, obeys close, drops a peer that is gone.

use super::{Feed, Live};
use crate::auth;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io;
use std::net::TcpStream;
use std::time::{Duration, Instant};
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tungstenite::{Bytes, Error, Message, WebSocket};

/// Bytes that a message of the client may have. It has nothing to say, so this
/// is generous; the library's own limit is 64 MiB.
const MAX_MESSAGE: usize = 64 * 1024;

/// Bytes that may wait for the peer: one message of ours and many pongs.
const MAX_WAITING: usize = 64 * 1024;

/// Messages of the client that are read in one turn, so that one who never
/// stops sending keeps nothing else from happening.
const READ_AT_ONCE: usize = 32;

/// Time in which a peer that does not read must take the last frame.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Why a session is over.
pub(super) enum End {
    /// With a close frame from us.
    Close(CloseCode, &'static str),
    /// The client closed; it gets its answer.
    Closed,
    /// It is gone or does not answer: nothing to say any more.
    Gone,
}

/// A session and its clocks.
pub(super) struct Session<'a> {
    socket: WebSocket<TcpStream>,
    feed: Box<dyn Feed + 'a>,
    live: &'a Live,
    owner: auth::Session,
    /// Since when not everything has gone out.
    waiting: Option<Instant>,
    ping_at: Instant,
    pong_by: Option<Instant>,
    tick_at: Instant,
}

impl<'a> Session<'a> {
    pub(super) fn new(
        stream: TcpStream,
        leftover: Vec<u8>,
        feed: Box<dyn Feed + 'a>,
        live: &'a Live,
        owner: auth::Session,
    ) -> Self {
        let config = WebSocketConfig::default()
            .read_buffer_size(4 * 1024)
            .write_buffer_size(16 * 1024)
            .max_write_buffer_size(MAX_WAITING)
            .max_message_size(Some(MAX_MESSAGE))
            .max_frame_size(Some(MAX_MESSAGE))
            .accept_unmasked_frames(false);
        let socket = WebSocket::from_partially_read(stream, leftover, Role::Server, Some(config));
        let now = Instant::now();
        let ping_at = now + live.limits.ping_every;
        Self { socket, feed, live, owner, waiting: None, ping_at, pong_by: None, tick_at: now }
    }

    /// Holds the session until it is over.
    pub(super) fn run(mut self) {
        let end = loop {
            match self.turn(Instant::now()) {
                Ok(true) => self.wait(),
                Ok(false) => {}
                Err(end) => break end,
            }
        };
        if let End::Close(code, reason) = end {
            let _ = self.socket.close(Some(CloseFrame { code, reason: reason.into() }));
        }
        if !matches!(end, End::Gone) {
            // What waits goes out; then the gate waits for the peer to end its side.
            let stream = self.socket.get_ref();
            let _ = stream.set_nonblocking(false);
            let _ = stream.set_write_timeout(Some(CLOSE_TIMEOUT));
            let _ = self.socket.flush();
        }
    }

    /// One round. Says whether there is nothing to do before something happens.
    fn turn(&mut self, now: Instant) -> Result<bool, End> {
        let tick = self.look_around(now)?;
        let mut idle = true;
        // What comes next is fetched only when all before it has gone out.
        if self.waiting.is_none() {
            if now >= self.ping_at {
                self.ping_at = now + self.live.limits.ping_every;
                // The first ping that is still open counts.
                self.pong_by.get_or_insert(now + self.live.limits.pong_within);
                done(self.socket.write(Message::Ping(Bytes::new())))?;
            }
            if let Some(text) = self.feed.next(now, tick)? {
                done(self.socket.write(Message::text(text)))?;
                idle = false;
            }
        }
        let all_read = self.read()?;
        let has_gone = done(self.socket.flush())?;
        self.waiting = if has_gone { None } else { self.waiting.or(Some(now)) };
        if self.waiting.is_some_and(|since| now >= since + self.live.limits.stalled_after) {
            return Err(End::Gone);
        }
        Ok(all_read && (idle || !has_gone))
    }

    /// The server, the token, the time: what may end a session from outside.
    fn look_around(&mut self, now: Instant) -> Result<bool, End> {
        if self.live.seats.is_closing() {
            return Err(End::Close(CloseCode::Away, "the server is stopping"));
        }
        if self.pong_by.is_some_and(|by| now >= by) {
            return Err(End::Gone);
        }
        let tick = now >= self.tick_at;
        if tick {
            self.tick_at = now + self.live.limits.tick;
            if !self.live.settings.auth.is_alive(&self.owner) {
                return Err(End::Close(CloseCode::Policy, "token changed"));
            }
        }
        Ok(tick)
    }

    /// Reads what the client sent. Says whether that was all.
    fn read(&mut self) -> Result<bool, End> {
        for _ in 0..READ_AT_ONCE {
            match self.socket.read() {
                // An answer to a ping is queued by the library.
                Ok(Message::Pong(_)) => self.pong_by = None,
                Ok(Message::Close(_)) => return Err(End::Closed),
                // A client has nothing to say here, and may say it.
                Ok(_) => {}
                Err(error) => return done(Err(error)).map(|_| true),
            }
        }
        Ok(false)
    }

    /// Waits for the peer, the feed, the server's end or the next look around.
    fn wait(&self) {
        let mut what = PollFlags::IN;
        what.set(PollFlags::OUT, self.waiting.is_some());
        let feed = self.feed.fd().filter(|_| self.waiting.is_none());
        let mut fds = vec![
            PollFd::new(self.socket.get_ref(), what),
            PollFd::new(&self.live.seats.wake_up, PollFlags::IN),
        ];
        fds.extend(feed.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
        let left = self.tick_at.saturating_duration_since(Instant::now());
        // One millisecond more, or a wait that is rounded down would spin at its end.
        let left = left + Duration::from_millis(1);
        // An error here is EINTR or a lack of memory; the next turn finds out more.
        let _ = poll(&mut fds, Timespec::try_from(left).ok().as_ref());
    }
}

/// Whether it was done at once; everything but "not yet" ends the session.
fn done(result: Result<(), Error>) -> Result<bool, End> {
    let Err(error) = result else { return Ok(true) };
    Err(match error {
        Error::Io(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
        Error::Capacity(_) => End::Close(CloseCode::Size, "the message is over 64 KiB"),
        Error::Utf8(_) => End::Close(CloseCode::Invalid, "the text is not UTF-8"),
        Error::Protocol(tungstenite::error::ProtocolError::ResetWithoutClosingHandshake) => {
            End::Gone
        }
        Error::Protocol(_) => End::Close(CloseCode::Protocol, "this is not the WebSocket protocol"),
        _ => End::Gone,
    })
}
