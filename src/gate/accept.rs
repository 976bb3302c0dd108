//! Accepting connections. Nothing that happens to one of them, and no shortage of
//! files or memory, ends it.

use super::Context;
use super::Peer;
use super::admission::{Admission, NoSlot, Permit};
use super::poll::Poll;
use super::refusal::Refusal;
use std::collections::VecDeque;
use std::io::{self, ErrorKind, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The pause after a failed accept: long enough for workers that were told to go to
/// close their files, short enough that nobody notices.
const BACK_OFF: Duration = Duration::from_millis(5);

/// Connections that make room when one cannot be accepted: some more, so that a
/// crowd at the door is not let in at the pace of the pauses.
const EVICTED_AT_ONCE: usize = 16;

/// Connections that are accepted at once, before others have their turn.
const ROUND: usize = 64;

/// How long a new connection waits at most for one that leaves. The kernel keeps those
/// who come after it meanwhile.
const LEAVING_TIME: Duration = Duration::from_millis(250);

/// How long a client that was turned away has to read why.
const PARTING: Duration = Duration::from_secs(1);

/// How many of those are kept at a time; the oldest goes first.
const MAX_PARTING: usize = 32;

/// One log line about failed accepts in this time is enough.
const QUIET: Duration = Duration::from_secs(60);

/// Where connections come from.
pub(super) enum Listener {
    Public(TcpListener),
    Proxy(UnixListener),
}

impl Listener {
    fn accept(&self) -> io::Result<(TcpStream, Peer)> {
        match self {
            Self::Public(listener) => {
                let (stream, peer) = listener.accept()?;
                Ok((stream, Peer::Address(peer.ip())))
            }
            // From here on any stream is as good as another.
            Self::Proxy(listener) => {
                let stream = TcpStream::from(OwnedFd::from(listener.accept()?.0));
                Ok((stream, Peer::Proxy))
            }
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Public(listener) => listener.as_fd(),
            Self::Proxy(listener) => listener.as_fd(),
        }
    }
}

/// Accepts and seats.
pub(super) struct Acceptor {
    context: Arc<Context>,
    seats: Arc<Admission>,
    /// The listeners, and whether connections may wait there.
    listeners: Vec<(Listener, bool)>,
    /// Who waits for a seat that is being left, and how long at most.
    waiting: Option<(TcpStream, Peer, Instant)>,
    /// No accept until then.
    pause: Option<Instant>,
    /// Who was turned away, and is kept so long.
    parting: VecDeque<(Instant, TcpStream)>,
    complained: Option<Instant>,
}

impl Acceptor {
    pub fn new(context: Arc<Context>, seats: Arc<Admission>, listeners: Vec<Listener>) -> Self {
        Self {
            context,
            seats,
            listeners: listeners.into_iter().map(|listener| (listener, true)).collect(),
            waiting: None,
            pause: None,
            parting: VecDeque::new(),
            complained: None,
        }
    }

    /// Has the listeners watched, under tokens from `first` on.
    pub fn watch(&self, poll: &Poll, first: u64) -> io::Result<()> {
        (first..).zip(&self.listeners).try_for_each(|(token, (l, _))| poll.watch(l, token))
    }

    /// Notes that a connection waits at a listener.
    pub fn note(&mut self, at: usize) {
        if let Some((_, waits)) = self.listeners.get_mut(at) {
            *waits = true;
        }
    }

    /// Accepts nobody any more.
    pub fn close(&mut self) {
        self.listeners.clear();
        self.waiting = None;
    }

    /// When [`Acceptor::accept`] is to be called again.
    pub fn deadline(&self, now: Instant) -> Option<Instant> {
        let next = if self.waiting.is_some() {
            Some(now + BACK_OFF)
        } else if self.listeners.iter().any(|(_, waits)| *waits) {
            Some(self.pause.unwrap_or(now))
        } else {
            None
        };
        next.into_iter().chain(self.parting.front().map(|(until, _)| *until)).min()
    }

    /// Accepts those who wait, a round of them, and passes on those that get a slot.
    pub fn accept(&mut self, now: Instant, seated: &mut Vec<(Permit, Peer)>) {
        while self.parting.front().is_some_and(|(until, _)| *until <= now) {
            self.parting.pop_front();
        }
        if self.pause.is_some_and(|until| until > now) {
            return;
        }
        self.pause = None;
        if let Some((stream, peer, until)) = self.waiting.take() {
            self.welcome(stream, peer, until, now, seated);
        }
        for at in 0..self.listeners.len() {
            let mut left = ROUND;
            while self.listeners[at].1 && left > 0 && self.waiting.is_none() && self.pause.is_none()
            {
                left -= 1;
                self.accept_one(at, now, seated);
            }
        }
    }

    fn accept_one(&mut self, at: usize, now: Instant, seated: &mut Vec<(Permit, Peer)>) {
        match self.listeners[at].0.accept() {
            Ok((stream, peer)) => self.welcome(stream, peer, now + LEAVING_TIME, now, seated),
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock => self.listeners[at].1 = false,
                // The client was gone before its turn (accept(2)).
                ErrorKind::ConnectionAborted
                | ErrorKind::ConnectionReset
                | ErrorKind::Interrupted => {}
                _ => {
                    self.complain(&error);
                    self.make_room();
                    self.pause = Some(now + BACK_OFF);
                }
            },
        }
    }

    fn welcome(
        &mut self,
        stream: TcpStream,
        peer: Peer,
        until: Instant,
        now: Instant,
        seated: &mut Vec<(Permit, Peer)>,
    ) {
        let source = (self.context.resolve)(peer, &[], None);
        match self.seats.admit(stream, source.client, !source.trusted_proxy) {
            Ok(permit) => seated.push((permit, peer)),
            Err(NoSlot::Yet(stream)) if until > now => {
                self.waiting = Some((stream, peer, until));
            }
            Err(NoSlot::Yet(stream) | NoSlot::Free(stream)) => {
                turn_away(&stream);
                if self.parting.len() >= MAX_PARTING {
                    self.parting.pop_front();
                }
                // Kept open for a moment: a close with its request unread would
                // destroy the answer on its way.
                self.parting.push_back((now + PARTING, stream));
            }
        }
    }

    /// Tells some that may go to go.
    pub fn make_room(&self) {
        for _ in 0..EVICTED_AT_ONCE {
            if !self.seats.evict_one() {
                return;
            }
        }
    }

    fn complain(&mut self, error: &io::Error) {
        if self.complained.is_none_or(|at| at.elapsed() > QUIET) {
            self.complained = Some(Instant::now());
            log::error!("connections cannot be accepted: {error}; trying again all the time");
        }
    }
}

/// Tells a client that there is no room, without waiting for it.
pub(super) fn turn_away(mut stream: &TcpStream) {
    if stream.set_nonblocking(true).is_ok() {
        let _ = stream.write(&Refusal::FULL.answer(false, false));
        let _ = stream.shutdown(Shutdown::Write);
    }
}
