//! A way to tiny_http: one connection over its Unix socket that requests share. There are
//! two, for those that read and for those that change something.
//!
//! Requests go out one behind the other without waiting for answers, and answers
//! come back in the same order (RFC 9112, 9.3.2): tiny_http and the thread that
//! handles them find the next one ready, so under load nobody has to be woken
//! for it. Nothing in here waits: the event loop says when the socket can be read or
//! written.
//!
//! The whole answer is read back before a client gets any of it: the threads that
//! handle requests never wait for a client. And since nobody has a line of their
//! own, a crowd of strangers delays the owner by one round of it and no more.

use super::poll::{ENDED, EventFlags, Poll};
use super::refusal::Refusal;
use super::rewrite::{self, AnswerHead};
use rustix::buffer::spare_capacity;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags, recv, sendmsg};
use std::collections::VecDeque;
use std::io::IoSlice;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Room for what is read at once: a few usual answers. Kept while the line is open.
const INBOX: usize = 64 * 1024;

/// Bytes in an answer. What is larger belongs into a file ([`super::internal_headers::FILE`]).
const MAX_ANSWER: usize = 32 * 1024 * 1024;

/// Requests that are sent at once.
const TOGETHER: usize = 32;

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    /// The other side had closed before it could read any of the request.
    NotSent,
    /// The answer ended early, or is none.
    Broken,
    TooSlow,
}

impl From<Trouble> for Refusal {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::NotSent => Self::NO_ANSWER,
            Trouble::Broken => Self::BAD_ANSWER,
            Trouble::TooSlow => Self::NO_ANSWER_IN_TIME,
        }
    }
}

/// One request's place in the line.
struct Waiting {
    /// Whose request it is.
    id: u64,
    to_head: bool,
    /// The bytes, until they are sent.
    request: Vec<u8>,
    /// When its answer must be there.
    until: Instant,
    /// Whether it stood in another line before, which was closed too early.
    again: bool,
}

/// An answer that is whole.
#[derive(Debug)]
pub(super) struct Arrived {
    /// Whose request it answers.
    pub id: u64,
    pub head: AnswerHead,
    /// Bytes of head and body together.
    pub whole: usize,
}

/// The connection to tiny_http, opened when it is needed.
pub(super) struct Relay {
    path: PathBuf,
    /// The token under which the connection is watched.
    token: u64,
    patience: Duration,
    stream: Option<UnixStream>,
    /// The requests that have no answer yet, in their order.
    waiting: VecDeque<Waiting>,
    /// How many of them were sent whole, and bytes of the next one that were sent.
    sent: usize,
    begun: usize,
    /// What was read and belongs to answers that are not whole yet.
    inbox: Vec<u8>,
    /// Bytes in the inbox before which the next answer cannot be whole.
    needed: usize,
    readable: bool,
    ended: bool,
    /// Whether the kernel takes no more for now, and whether it shall tell of room.
    blocked: bool,
    asked_for_room: bool,
    /// Requests that get no answer.
    lost: Vec<(u64, Refusal)>,
}

impl Relay {
    /// An answer may take `patience`.
    pub fn new(path: PathBuf, token: u64, patience: Duration) -> Self {
        Self {
            path,
            token,
            patience,
            stream: None,
            waiting: VecDeque::new(),
            sent: 0,
            begun: 0,
            inbox: Vec::new(),
            needed: 0,
            readable: false,
            ended: false,
            blocked: false,
            asked_for_room: false,
            lost: Vec::new(),
        }
    }

    /// Puts a request into the line. `to_head` says that the method is `HEAD`, whose
    /// answer has no body.
    pub fn push(&mut self, id: u64, request: Vec<u8>, to_head: bool, now: Instant) {
        let until = now + self.patience;
        self.waiting.push_back(Waiting { id, to_head, request, until, again: false });
    }

    /// Notes what the kernel told of the connection.
    pub fn note(&mut self, flags: EventFlags) {
        if self.stream.is_none() {
            return;
        }
        self.readable |= flags.contains(EventFlags::IN) || flags.intersects(ENDED);
        self.ended |= flags.intersects(ENDED);
        self.blocked &= !flags.contains(EventFlags::OUT);
    }

    /// When [`Relay::expire`] is to be called.
    pub fn deadline(&self) -> Option<Instant> {
        self.waiting.front().map(|place| place.until)
    }

    /// Gives up on the line when its first answer is late.
    pub fn expire(&mut self, now: Instant) {
        if self.deadline().is_some_and(|until| until <= now) {
            self.fail(Trouble::TooSlow);
        }
    }

    /// Gives up on the line, whatever it is doing.
    pub fn give_up(&mut self) {
        self.fail(Trouble::Broken);
    }

    /// The requests that get no answer, and what their clients get instead.
    pub fn take_lost(&mut self) -> Vec<(u64, Refusal)> {
        std::mem::take(&mut self.lost)
    }

    /// Whether there is something to do at once: to send, to receive, or to tell those
    /// who get no answer.
    pub fn is_ready(&self) -> bool {
        self.readable || !self.lost.is_empty() || (self.sent < self.waiting.len() && !self.blocked)
    }

    /// Sends what stands in line, as far as the kernel takes it.
    pub fn send(&mut self, poll: &Poll) {
        while self.sent < self.waiting.len() && !self.blocked {
            self.open(poll);
            let Some(stream) = &self.stream else { return };
            let mut pieces = [IoSlice::new(b""); TOGETHER];
            let mut skip = self.begun;
            for (piece, place) in pieces.iter_mut().zip(self.waiting.range(self.sent..)) {
                *piece = IoSlice::new(&place.request[skip..]);
                skip = 0;
            }
            let count = TOGETHER.min(self.waiting.len() - self.sent);
            let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
            match sendmsg(stream, &pieces[..count], &mut SendAncillaryBuffer::default(), flags) {
                Ok(taken) => self.advance(taken),
                Err(Errno::AGAIN) => {
                    self.blocked = true;
                    self.ask_for_room(poll, true);
                }
                Err(Errno::INTR) => {}
                Err(_) => self.fail(Trouble::Broken),
            }
        }
        if self.asked_for_room && !self.blocked {
            self.ask_for_room(poll, false);
        }
    }

    fn ask_for_room(&mut self, poll: &Poll, ask: bool) {
        let Some(stream) = &self.stream else { return };
        self.asked_for_room = ask;
        if poll.watch_for_room(stream, self.token, ask).is_err() {
            self.fail(Trouble::Broken);
        }
    }

    /// Opens the connection if there is none.
    fn open(&mut self, poll: &Poll) {
        if self.stream.is_some() {
            return;
        }
        let opened = UnixStream::connect(&self.path)
            .and_then(|stream| poll.watch(&stream, self.token).map(|()| stream));
        match opened {
            Ok(stream) => self.stream = Some(stream),
            Err(error) => {
                log::warn!("the relay socket cannot be reached: {error}");
                let lost = self.waiting.drain(..).map(|place| (place.id, Refusal::NO_ANSWER));
                self.lost.extend(lost);
            }
        }
    }

    /// Notes that the kernel took so many bytes.
    fn advance(&mut self, mut taken: usize) {
        while taken > 0 {
            let place = &mut self.waiting[self.sent];
            let rest = place.request.len() - self.begun;
            if taken < rest {
                self.begun += taken;
                return;
            }
            taken -= rest;
            place.request = Vec::new();
            self.sent += 1;
            self.begun = 0;
        }
    }

    /// Reads what is there, once, and lends it: to [`Relay::next_answer`], until there
    /// is none, and then to [`Relay::give_back`].
    pub fn receive(&mut self) -> Vec<u8> {
        if self.readable && self.stream.is_some() {
            self.read();
        }
        std::mem::take(&mut self.inbox)
    }

    fn read(&mut self) {
        let Some(stream) = &self.stream else { return };
        let room = self.needed.saturating_sub(self.inbox.len()).max(INBOX / 2);
        if self.inbox.capacity() - self.inbox.len() < room {
            self.inbox.reserve_exact(room.max(INBOX - self.inbox.len().min(INBOX)));
        }
        let room = self.inbox.capacity() - self.inbox.len();
        match recv(stream, spare_capacity(&mut self.inbox), RecvFlags::DONTWAIT) {
            Ok((0, _)) => self.fail(Trouble::Broken),
            // Less than there was room for: the kernel has no more (epoll(7)).
            Ok((read, _)) => self.readable = read == room || self.ended,
            Err(Errno::AGAIN) => self.readable = false,
            Err(Errno::INTR) => {}
            Err(_) => self.fail(Trouble::Broken),
        }
    }

    /// The answer with which these bytes begin, if it is whole.
    pub fn next_answer(&mut self, bytes: &[u8]) -> Option<Arrived> {
        if bytes.is_empty() || bytes.len() < self.needed {
            return None;
        }
        let Some(place) = self.waiting.front() else {
            // An answer that nobody asked for.
            self.fail(Trouble::Broken);
            return None;
        };
        // Who answers before the whole request was sent is listened to, so that
        // neither side waits for the other, but not passed on yet.
        if self.sent == 0 {
            if bytes.len() > MAX_ANSWER {
                self.fail(Trouble::Broken);
            }
            return None;
        }
        match whole_answer(bytes, place.to_head) {
            Ok((Some(head), whole)) => {
                self.needed = 0;
                self.sent -= 1;
                let id = self.waiting.pop_front().map(|place| place.id)?;
                Some(Arrived { id, head, whole })
            }
            Ok((None, needed)) => {
                self.needed = needed;
                None
            }
            Err(trouble) => {
                self.fail(trouble);
                None
            }
        }
    }

    /// Takes back what was lent, of which so many bytes were used.
    pub fn give_back(&mut self, mut inbox: Vec<u8>, used: usize) {
        // What came over a line that has broken since is of no use.
        let used = if self.stream.is_some() { used } else { inbox.len() };
        inbox.drain(..used);
        if inbox.is_empty() && inbox.capacity() > INBOX {
            inbox = Vec::new();
        }
        self.inbox = inbox;
    }

    /// Ends the line: nobody knows what would still come over it.
    fn fail(&mut self, trouble: Trouble) {
        self.stream = None;
        self.inbox.clear();
        (self.needed, self.readable, self.ended) = (0, false, false);
        (self.blocked, self.asked_for_room) = (false, false);
        if self.waiting.is_empty() {
            return;
        }
        // What was sent may have been handled: only its own client may ask again.
        let begun = self.sent + usize::from(self.begun > 0);
        (self.sent, self.begun) = (0, 0);
        let mut troubled = 0;
        for (at, mut place) in std::mem::take(&mut self.waiting).into_iter().enumerate() {
            if at < begun || place.again {
                let trouble = if at < begun { trouble } else { Trouble::NotSent };
                self.lost.push((place.id, trouble.into()));
                troubled += 1;
            } else {
                // It was closed before any of this request was read: Unix sockets tell
                // so at once. A new connection may do better.
                place.again = true;
                self.waiting.push_back(place);
            }
        }
        if troubled > 0 {
            log::warn!("{troubled} requests got no answer over the relay: {trouble:?}");
        }
    }
}

/// The head of the first answer in these bytes if all of the answer is there, and how
/// many bytes it has, or must have at least.
fn whole_answer(bytes: &[u8], to_head: bool) -> Result<(Option<AnswerHead>, usize), Trouble> {
    let Some(head) = rewrite::answer(bytes, to_head).map_err(|_| Trouble::Broken)? else {
        let longer = bytes.len() + 1;
        return if longer > MAX_ANSWER { Err(Trouble::Broken) } else { Ok((None, longer)) };
    };
    let whole = head.received.saturating_add(head.body);
    if whole > MAX_ANSWER {
        return Err(Trouble::Broken);
    }
    Ok(((bytes.len() >= whole).then_some(head), whole))
}

#[cfg(test)]
mod tests;
