//! One session: sends what its feed has, answers pings, obeys close, drops a peer that is gone.

use super::wire::Wire;
use super::{Feed, Live, LiveLimits, Next};
use crate::auth;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io::{self, Read};
use std::net::Shutdown;
use std::os::fd::AsFd;
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

/// Why a session is over.
enum End {
    /// With a close frame from us.
    Close(CloseCode, &'static str),
    /// The client closed; it gets its answer.
    Closed,
    /// It broke the protocol: a close frame, and no more reading of frames.
    Broken(CloseCode, &'static str),
    /// It is gone or does not answer: nothing to say any more.
    Gone,
}

/// A session and its clocks.
pub(super) struct Session<'a> {
    socket: WebSocket<Wire>,
    feed: Feed<'a>,
    live: &'a Live,
    limits: LiveLimits,
    owner: auth::Session,
    /// Not everything has gone out yet.
    waiting: bool,
    /// Bytes sent when the peer last took some, and when that was.
    progress: (u64, Instant),
    ping_at: Instant,
    pong_by: Option<Instant>,
    tick_at: Instant,
    /// The feed has ended, for this reason; the last of it is on its way.
    over: Option<&'static str>,
}

impl<'a> Session<'a> {
    pub(super) fn new(
        (wire, leftover): (Wire, Vec<u8>),
        feed: Feed<'a>,
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
        let socket = WebSocket::from_partially_read(wire, leftover, Role::Server, Some(config));
        let (limits, now) = (live.limits, Instant::now());
        Self {
            socket,
            feed,
            live,
            limits,
            owner,
            waiting: false,
            progress: (0, now),
            ping_at: now + limits.ping_every,
            pong_by: None,
            tick_at: now,
            over: None,
        }
    }

    /// Holds the session until it is over.
    pub(super) fn run(mut self) {
        let end = loop {
            match self.turn(Instant::now()) {
                Ok(idle) => {
                    if idle {
                        self.wait();
                    }
                }
                Err(end) => break end,
            }
        };
        let until = Instant::now() + self.limits.close_timeout;
        match end {
            End::Close(code, reason) => {
                let _ = self.socket.close(Some(CloseFrame { code, reason: reason.into() }));
                self.close(until);
            }
            End::Closed => self.close(until),
            End::Broken(code, reason) => {
                let _ = self.socket.close(Some(CloseFrame { code, reason: reason.into() }));
                self.discard(until);
            }
            End::Gone => {}
        }
    }

    /// One round. Says whether there is nothing to do before something happens.
    fn turn(&mut self, now: Instant) -> Result<bool, End> {
        let tick = self.look_around(now)?;
        let mut idle = true;
        // What comes next is fetched only when all before it has gone out.
        if !self.waiting {
            if let Some(reason) = self.over {
                return Err(End::Close(CloseCode::Normal, reason));
            }
            self.ping(now)?;
            match self.feed.next(now, tick) {
                Next::Nothing => {}
                Next::Message(text) => {
                    self.write(Message::text(text))?;
                    idle = false;
                }
                Next::Over(last, reason) => {
                    self.over = Some(reason);
                    last.map_or(Ok(()), |last| self.write(Message::text(last)))?;
                    idle = false;
                }
                Next::Failed => {
                    return Err(End::Close(CloseCode::Error, "this failed inside the server"));
                }
            }
        }
        let all_read = self.read()?;
        self.waiting = !done(self.socket.flush())?;
        let sent = self.socket.get_ref().sent;
        if !self.waiting || sent != self.progress.0 {
            self.progress = (sent, now);
        } else if now.duration_since(self.progress.1) >= self.limits.stalled_after {
            return Err(End::Gone);
        }
        Ok(all_read && (idle || self.waiting))
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
            self.tick_at = now + self.limits.tick;
            if !self.live.settings.auth.is_alive(&self.owner) {
                return Err(End::Close(CloseCode::Policy, "token changed"));
            }
        }
        Ok(tick)
    }

    fn ping(&mut self, now: Instant) -> Result<(), End> {
        if now >= self.ping_at {
            self.ping_at = now + self.limits.ping_every;
            // The first ping that is still open counts.
            self.pong_by.get_or_insert(now + self.limits.pong_within);
            self.write(Message::Ping(Bytes::new()))?;
        }
        Ok(())
    }

    fn write(&mut self, message: Message) -> Result<(), End> {
        done(self.socket.write(message)).map(|_| ())
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

    /// Waits for the peer, the feed, the server's end or the next time to act.
    fn wait(&self) {
        let until = if self.waiting {
            self.tick_at.min(self.progress.1 + self.limits.stalled_after)
        } else {
            self.feed.due().map_or(self.ping_at, |due| due.min(self.ping_at)).min(self.tick_at)
        };
        let until = self.pong_by.map_or(until, |by| by.min(until));
        let mut what = PollFlags::IN;
        what.set(PollFlags::OUT, self.waiting);
        let wire = self.socket.get_ref();
        let wake_up = self.live.seats.wake_up();
        let feed = self.feed.fd().filter(|_| !self.waiting);
        let mut fds =
            vec![PollFd::from_borrowed_fd(wire.as_fd(), what), PollFd::new(wake_up, PollFlags::IN)];
        fds.extend(feed.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
        sleep(&mut fds, until);
    }

    /// Drives the closing handshake to its end, or gives up at `until`.
    fn close(&mut self, until: Instant) {
        while Instant::now() < until {
            let flushed = match self.socket.flush() {
                Ok(()) => true,
                Err(error) if would_block(&error) => false,
                Err(_) => break,
            };
            match self.socket.read() {
                Ok(_) => continue,
                Err(error) if would_block(&error) => {}
                Err(_) => break,
            }
            let mut what = PollFlags::IN;
            what.set(PollFlags::OUT, !flushed);
            let wire = self.socket.get_ref();
            sleep(&mut [PollFd::from_borrowed_fd(wire.as_fd(), what)], until);
        }
        let _ = self.socket.get_ref().stream().shutdown(Shutdown::Both);
    }

    /// Reads and forgets until the peer closes or `until`: closing a socket with
    /// unread bytes resets it, and the peer would not learn why.
    fn discard(&mut self, until: Instant) {
        let _ = self.socket.flush();
        let _ = self.socket.get_ref().stream().shutdown(Shutdown::Write);
        let mut nowhere = [0; 4 * 1024];
        while Instant::now() < until {
            match self.socket.get_mut().read(&mut nowhere) {
                Ok(0) => return,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let wire = self.socket.get_ref();
                    sleep(&mut [PollFd::from_borrowed_fd(wire.as_fd(), PollFlags::IN)], until);
                }
                Err(_) => return,
            }
        }
    }
}

fn sleep(fds: &mut [PollFd<'_>], until: Instant) {
    let left = until.saturating_duration_since(Instant::now());
    // One millisecond more, or a wait that is rounded down would spin at its end.
    let left = left + Duration::from_millis(1);
    // An error here is EINTR or a lack of memory; the next turn finds out more.
    let _ = poll(fds, Timespec::try_from(left).ok().as_ref());
}

fn would_block(error: &Error) -> bool {
    matches!(error, Error::Io(error) if error.kind() == io::ErrorKind::WouldBlock)
}

/// Whether it was done at once; everything but "not yet" ends the session.
fn done(result: Result<(), Error>) -> Result<bool, End> {
    let Err(error) = result else { return Ok(true) };
    if would_block(&error) {
        return Ok(false);
    }
    Err(match error {
        Error::Capacity(_) => End::Broken(CloseCode::Size, "the message is over 64 KiB"),
        Error::Utf8(_) => End::Broken(CloseCode::Invalid, "the text is not UTF-8"),
        Error::Protocol(tungstenite::error::ProtocolError::ResetWithoutClosingHandshake) => {
            End::Gone
        }
        Error::Protocol(_) => {
            End::Broken(CloseCode::Protocol, "this is not the WebSocket protocol")
        }
        _ => End::Gone,
    })
}
