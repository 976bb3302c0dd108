//! The loop that accepts connections. Nothing that happens to one of them, and no
//! shortage of files, memory or threads, ends it.

use super::Door;
use super::permit::{Permit, Seats};
use super::refusal::Refusal;
use super::workers::Workers;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use std::collections::VecDeque;
use std::io::{self, ErrorKind, Write as _};
use std::net::{IpAddr, Shutdown, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The pause after a failed accept: long enough for threads that were told to go to
/// close their files, short enough that nobody notices.
const BACK_OFF: Duration = Duration::from_millis(5);

/// Connections that make room when one cannot be accepted: some more, so that a
/// crowd at the door is not let in at the pace of the pauses.
const EVICTED_AT_ONCE: usize = 16;

/// How long a client that was turned away has to read why.
const PARTING: Duration = Duration::from_secs(1);

/// How many of those are kept at a time; the oldest goes first.
const MAX_PARTING: usize = 32;

/// One log line about failed accepts in this time is enough.
const QUIET: Duration = Duration::from_secs(60);

/// Wakes the loop so that it ends.
pub(super) struct Bell(OwnedFd);

impl Bell {
    pub fn new() -> io::Result<Self> {
        Ok(Self(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?))
    }

    pub fn ring(&self) {
        // It can only fail when it has been rung already.
        let _ = rustix::io::write(&self.0, &1_u64.to_ne_bytes());
    }
}

/// What one connection's thread gets.
pub(super) struct Guest {
    pub permit: Permit,
    pub peer: IpAddr,
}

/// The accept loop's own state.
pub(super) struct Porter {
    pub door: Arc<Door>,
    pub seats: Arc<Seats>,
    pub workers: Arc<Workers<Guest>>,
    pub listeners: Vec<TcpListener>,
    pub bell: Arc<Bell>,
    pub parting: VecDeque<(Instant, TcpStream)>,
    pub complained: Option<Instant>,
}

impl Porter {
    /// Accepts until the bell rings.
    pub fn run(mut self) {
        loop {
            let timeout = self.parting.front().map(|(until, _)| *until);
            let Some(ready) = self.wait(timeout, true) else { return };
            while self.parting.front().is_some_and(|(until, _)| *until <= Instant::now()) {
                self.parting.pop_front();
            }
            for at in ready {
                if !self.accept_all(at) && self.pause() {
                    return;
                }
            }
        }
    }

    /// Waits for connections, until `until` at most; says at which listeners. `None`
    /// when the bell has rung.
    fn wait(&self, until: Option<Instant>, listen: bool) -> Option<Vec<usize>> {
        let listeners = if listen { &self.listeners[..] } else { &[] };
        let mut fds: Vec<PollFd<'_>> =
            listeners.iter().map(|l| PollFd::new(l, PollFlags::IN)).collect();
        fds.push(PollFd::new(&self.bell.0, PollFlags::IN));
        let timeout = until
            .and_then(|at| Timespec::try_from(at.saturating_duration_since(Instant::now())).ok());
        // An error leaves the answers empty; then nobody is ready.
        let _ = poll(&mut fds, timeout.as_ref());
        let bell = fds.pop()?;
        if !bell.revents().is_empty() {
            return None;
        }
        Some((0..fds.len()).filter(|&at| !fds[at].revents().is_empty()).collect())
    }

    /// Pauses after a failure; true when the bell has rung.
    fn pause(&self) -> bool {
        self.wait(Some(Instant::now() + BACK_OFF), false).is_none()
    }

    /// Accepts everybody who waits at a listener. False when that went wrong in a
    /// way that may last.
    fn accept_all(&mut self, at: usize) -> bool {
        // A round is bounded, so that no listener keeps the others waiting.
        for _ in 0..64 {
            match self.listeners[at].accept() {
                Ok((stream, peer)) => {
                    let welcome = AssertUnwindSafe(|| self.welcome(stream, peer.ip()));
                    if catch_unwind(welcome).is_err() {
                        log::error!("a new connection ended by a panic");
                    }
                }
                Err(error) => match error.kind() {
                    ErrorKind::WouldBlock => return true,
                    // The client was gone before its turn (accept(2)).
                    ErrorKind::ConnectionAborted
                    | ErrorKind::ConnectionReset
                    | ErrorKind::Interrupted => {}
                    _ => {
                        self.complain(&error);
                        self.make_room();
                        return false;
                    }
                },
            }
        }
        true
    }

    fn make_room(&self) {
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

    fn welcome(&mut self, stream: TcpStream, peer: IpAddr) {
        let source = (self.door.resolve)(peer, &[], None);
        match self.seats.admit(stream, source.client, !source.trusted_proxy) {
            Ok(permit) => {
                if let Err(guest) = self.workers.start(Guest { permit, peer }) {
                    turn_away(guest.permit.stream());
                    self.make_room();
                }
            }
            Err(stream) => {
                turn_away(&stream);
                if self.parting.len() >= MAX_PARTING {
                    self.parting.pop_front();
                }
                // Kept open for a moment: a close with its request unread would
                // destroy the answer on its way.
                self.parting.push_back((Instant::now() + PARTING, stream));
            }
        }
    }
}

/// Tells a client that there is no room, without waiting for it.
fn turn_away(mut stream: &TcpStream) {
    if stream.set_nonblocking(true).is_ok() {
        let _ = stream.write(&Refusal::FULL.answer(false));
        let _ = stream.shutdown(Shutdown::Write);
    }
}
