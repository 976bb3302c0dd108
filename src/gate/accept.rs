//! Accepting connections. Nothing that happens to one of them, and no shortage of
//! files or memory, ends it.

use super::Context;
use super::admission::{Admission, FRESH, Permit};
use super::answer::Answer;
use super::client::Source;
use super::poll::Poll;
use super::refusal::Refusal;
use std::collections::VecDeque;
use std::io::{self, ErrorKind, Write as _};
use std::net::{IpAddr, Shutdown, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
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

/// How long a client that was turned away has to read why.
const PARTING: Duration = Duration::from_secs(1);

/// How many of those are kept at a time; the oldest goes first.
const MAX_PARTING: usize = 32;

/// One log line about failed accepts in this time is enough.
const QUIET: Duration = Duration::from_secs(60);

/// Accepts and seats.
pub(super) struct Acceptor {
    context: Arc<Context>,
    seats: Arc<Admission>,
    /// Where connections come from, from clients and from a proxy of our own; none once it is
    /// closed.
    listeners: Option<(TcpListener, UnixListener)>,
    /// Whether connections may wait at them.
    due: bool,
    /// No accept until then.
    pause: Option<Instant>,
    /// Who was turned away, and is kept so long.
    parting: VecDeque<(Instant, TcpStream)>,
    complained: Option<Instant>,
}

impl Acceptor {
    pub fn new(
        context: Arc<Context>,
        seats: Arc<Admission>,
        listeners: (TcpListener, UnixListener),
    ) -> Self {
        let (listeners, parting) = (Some(listeners), VecDeque::new());
        Self { context, seats, listeners, due: true, pause: None, parting, complained: None }
    }

    /// Has the listeners watched, under one token.
    pub fn watch(&self, poll: &Poll, token: u64) -> io::Result<()> {
        self.listeners.iter().try_for_each(|(public, proxy)| {
            poll.watch(public, token)?;
            poll.watch(proxy, token)
        })
    }

    /// Notes that a connection waits at a listener.
    pub fn note(&mut self) {
        self.due = true;
    }

    /// Accepts nobody any more; whoever waits at the listeners is for the next who has them.
    pub fn close(&mut self) {
        self.listeners = None;
        self.seats.close(FRESH);
    }

    /// When [`Acceptor::accept`] is to be called again.
    pub fn deadline(&self, now: Instant) -> Option<Instant> {
        let next = self.due.then(|| match self.pause {
            Some(until) => until,
            None if self.seats.is_crowded() => now + BACK_OFF,
            None => now,
        });
        next.into_iter().chain(self.parting.front().map(|(until, _)| *until)).min()
    }

    /// Accepts those who wait, a round of them; gives those that got a seat.
    pub fn accept(&mut self, now: Instant) -> Vec<(Permit, Option<IpAddr>)> {
        while self.parting.front().is_some_and(|(until, _)| *until <= now) {
            self.parting.pop_front();
        }
        let mut seated = Vec::new();
        if !self.due || self.pause.is_some_and(|until| until > now) {
            return seated;
        }
        (self.due, self.pause) = (false, None);
        for from_proxy in [false, true] {
            for left in (0..ROUND).rev() {
                // The kernel keeps newcomers until some of those who were told to go have gone.
                if self.seats.is_crowded() {
                    self.due = true;
                    return seated;
                }
                match self.next(from_proxy) {
                    Ok((stream, peer)) => seated.extend(self.welcome(stream, peer, now)),
                    Err(error) => match error.kind() {
                        ErrorKind::WouldBlock => break,
                        // The client was gone before its turn (accept(2)).
                        ErrorKind::ConnectionAborted
                        | ErrorKind::ConnectionReset
                        | ErrorKind::Interrupted => {}
                        _ => {
                            self.complain(&error);
                            self.make_room();
                            (self.due, self.pause) = (true, Some(now + BACK_OFF));
                            break;
                        }
                    },
                }
                self.due |= left == 0;
            }
        }
        seated
    }

    /// The next connection, from a client or from a proxy of our own.
    fn next(&self, from_proxy: bool) -> io::Result<(TcpStream, Option<IpAddr>)> {
        let Some((public, proxy)) = &self.listeners else {
            return Err(ErrorKind::WouldBlock.into());
        };
        if from_proxy {
            // From here on any stream is as good as another.
            return Ok((OwnedFd::from(proxy.accept()?.0).into(), None));
        }
        let (stream, peer) = public.accept()?;
        Ok((stream, Some(peer.ip())))
    }

    fn welcome(
        &mut self,
        stream: TcpStream,
        peer: Option<IpAddr>,
        now: Instant,
    ) -> Option<(Permit, Option<IpAddr>)> {
        let source = Source::find(&self.context.trust, peer, &[], None);
        match self.seats.admit(stream, source.client, !source.trusted_proxy) {
            Ok(permit) => Some((permit, peer)),
            Err(stream) => {
                turn_away(&stream);
                if self.parting.len() >= MAX_PARTING {
                    self.parting.pop_front();
                }
                // Kept open for a moment: a close with its request unread would
                // destroy the answer on its way.
                self.parting.push_back((now + PARTING, stream));
                None
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
    if let Ok(answer) = Answer::from(Refusal::FULL).whole(false, false, false)
        && stream.set_nonblocking(true).is_ok()
    {
        let _ = stream.write(&answer);
        let _ = stream.shutdown(Shutdown::Write);
    }
}
