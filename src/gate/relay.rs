//! A way to tiny_http: one connection over its Unix socket that requests share. There are
//! two, for those that read and for those that change something.
//!
//! Requests go out one behind the other without waiting for answers: tiny_http and the
//! thread that handles them find the next one ready, so under load nobody has to be woken
//! for it. Nothing in here waits: the event loop says when the socket can be written.
//!
//! Nothing comes back over it: an answer comes as plain data, by its request's number
//! ([`super::Completions`]). And since nobody has a line of their own, a crowd of strangers
//! delays the owner by one round of it and no more.

use super::poll::{EventFlags, Poll};
use super::refusal::Refusal;
use rustix::io::Errno;
use rustix::net::{SendFlags, send};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

/// What the buffer keeps when all of it was sent: some thirty usual requests.
const KEPT: usize = 16 * 1024;

/// The connection to tiny_http, opened when it is needed.
pub(super) struct Relay {
    path: PathBuf,
    /// The token under which the connection is watched.
    token: u64,
    stream: Option<UnixStream>,
    /// Requests that the kernel has not taken yet, and how much of them it has.
    outbox: Vec<u8>,
    taken: usize,
    /// Whether the kernel takes no more for now.
    blocked: bool,
}

impl Relay {
    pub fn new(path: PathBuf, token: u64) -> Self {
        Self { path, token, stream: None, outbox: Vec::new(), taken: 0, blocked: false }
    }

    /// Puts a request into the line.
    pub fn push(&mut self, request: &[u8]) {
        // What is sent goes, also while there is always more to send.
        if self.taken >= KEPT && 2 * self.taken >= self.outbox.len() {
            self.outbox.drain(..self.taken);
            self.taken = 0;
        }
        self.outbox.extend_from_slice(request);
    }

    /// Notes what the kernel told of the connection.
    ///
    /// # Errors
    /// When it is of no use any more: tiny_http says something only about requests that were
    /// dropped without an answer.
    pub fn note(&mut self, flags: EventFlags, poll: &Poll) -> Result<(), Refusal> {
        let is_room = flags == EventFlags::OUT;
        if is_room { self.watch_for_room(poll, false) } else { Err(Refusal::BAD_ANSWER) }
    }

    /// Whether the kernel takes no more for now; then it shall tell of room.
    fn watch_for_room(&mut self, poll: &Poll, blocked: bool) -> Result<(), Refusal> {
        self.blocked = blocked;
        let watched = self.stream.as_ref().map(|s| poll.watch_for_room(s, self.token, blocked));
        watched.unwrap_or(Ok(())).map_err(|_| Refusal::BAD_ANSWER)
    }

    /// Whether there is something to send at once.
    pub fn is_ready(&self) -> bool {
        !self.outbox.is_empty() && !self.blocked
    }

    /// Sends what stands in line, as far as the kernel takes it.
    ///
    /// # Errors
    /// What the clients get whose requests are in the line.
    pub fn send(&mut self, poll: &Poll) -> Result<(), Refusal> {
        while self.is_ready() {
            let stream = match &self.stream {
                Some(stream) => stream,
                None => self.stream.insert(self.open(poll)?),
            };
            let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
            match send(stream, &self.outbox[self.taken..], flags) {
                Ok(taken) => self.taken += taken,
                Err(Errno::AGAIN) => self.watch_for_room(poll, true)?,
                Err(Errno::INTR) => {}
                Err(_) => return Err(Refusal::BAD_ANSWER),
            }
            if self.taken == self.outbox.len() {
                self.taken = 0;
                self.outbox.clear();
                self.outbox.shrink_to(KEPT);
            }
        }
        Ok(())
    }

    fn open(&self, poll: &Poll) -> Result<UnixStream, Refusal> {
        let opened = UnixStream::connect(&self.path)
            .and_then(|stream| poll.watch(&stream, self.token).map(|()| stream));
        opened.map_err(|error| {
            log::warn!("the relay socket cannot be reached: {error}");
            Refusal::NO_ANSWER
        })
    }

    /// Ends the line. What was sent over it may be handled: only its own client may ask again.
    pub fn give_up(&mut self) {
        (self.stream, self.blocked, self.taken) = (None, false, 0);
        self.outbox = Vec::new();
    }
}

#[cfg(test)]
mod tests;
