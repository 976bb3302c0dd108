//! The way to tiny_http: a few persistent connections over its Unix socket.
//!
//! Whoever needs one while all are busy stands in a queue, so that a crowd of
//! strangers can delay the owner by one round of the queue and no more. The whole
//! answer is read back before the caller gets any of it: the thread that handles
//! requests never waits for a client.

use super::permit::Presence;
use super::refusal::Refusal;
use super::rewrite::{self, AnswerHead};
use rustix::buffer::spare_capacity;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use std::collections::VecDeque;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// First size of the buffer for an answer; most answers of the API fit.
const ANSWER_ROOM: usize = 16 * 1024;

/// Bytes in an answer. What is larger belongs into a file (`X-Gate-File`).
const MAX_ANSWER: usize = 32 * 1024 * 1024;

/// Bytes of a request that somebody else may send: so few that an idle connection
/// takes them at once (Linux gives a Unix socket 208 KiB).
const SENT_AHEAD: usize = 16 * 1024;

/// An answer, whole.
pub(super) struct Answer {
    pub head: AnswerHead,
    received: Vec<u8>,
}

impl Answer {
    /// The body, empty when a file is the body.
    pub fn body(&self) -> &[u8] {
        &self.received[self.head.received..]
    }

    /// Bytes of memory that this answer takes.
    pub fn weight(&self) -> usize {
        self.received.capacity()
    }
}

/// The connections to tiny_http.
pub(super) struct Relay {
    path: PathBuf,
    most: usize,
    patience: Duration,
    pool: Mutex<Pool>,
}

#[derive(Default)]
struct Pool {
    idle: Vec<UnixStream>,
    open: usize,
    queue: VecDeque<Arc<Turn>>,
}

/// What somebody gets who needs a connection.
enum Line {
    /// None is open; it may open one.
    ToOpen,
    /// An open one, on which nothing is under way.
    Idle(UnixStream),
    /// An open one, over which its request was sent already.
    Sent(UnixStream),
    /// None, because nobody would read the answer.
    ClientGone,
}

/// One place in the queue.
struct Turn {
    client: Option<Presence>,
    state: Mutex<Waiting>,
    come: Condvar,
}

struct Waiting {
    request: Vec<u8>,
    line: Option<Line>,
}

impl Relay {
    /// `most` connections at a time; an answer may take `patience`, and so may the
    /// wait for a free connection.
    pub fn new(path: PathBuf, most: usize, patience: Duration) -> Self {
        Self { path, most, patience, pool: Mutex::default() }
    }

    /// Sends a request and reads its answer. `to_head` says that the method is
    /// `HEAD`, whose answer has no body. When `client` goes while the request waits
    /// for its turn, the request is dropped: a crowd that sends and runs costs the
    /// handler nothing.
    ///
    /// # Errors
    /// The [`Refusal`] that the client shall get instead.
    pub fn exchange(
        &self,
        mut request: Vec<u8>,
        to_head: bool,
        client: Option<Presence>,
    ) -> Result<Answer, Refusal> {
        let line = self.take(&mut request, client)?;
        let mut lease = Lease { relay: self, line: None };
        let until = Instant::now() + self.patience;
        let result = match line {
            Line::Sent(line) => receive(lease.line.insert(line), Vec::new(), to_head, until),
            Line::Idle(line) => converse(lease.line.insert(line), &request, to_head, until),
            Line::ToOpen | Line::ClientGone => Err(Trouble::NotSent),
        };
        // It was closed while it idled, and none of the request was read: Unix sockets
        // tell so at once. A new connection may do better.
        if let Err(Trouble::NotSent) = result {
            lease.line = None;
            let line = self.connect().map_err(|error| {
                log::warn!("the relay socket cannot be reached: {error}");
                Refusal::NO_ANSWER
            })?;
            let result = converse(lease.line.insert(line), &request, to_head, until);
            return lease.settle(result);
        }
        lease.settle(result)
    }

    /// Opens all connections ahead. tiny_http may leave one lying that comes at the
    /// same moment as another (its `TaskPool` counts idle threads too late), so the
    /// moment is chosen here, before anybody else connects.
    pub fn warm_up(&self) {
        let mut pool = self.lock();
        while pool.open < self.most
            && let Ok(line) = self.connect()
        {
            pool.open += 1;
            pool.idle.push(line);
        }
    }

    fn connect(&self) -> io::Result<UnixStream> {
        UnixStream::connect(&self.path)
    }

    /// Waits for a connection. The request is lent to the queue meanwhile.
    fn take(&self, request: &mut Vec<u8>, client: Option<Presence>) -> Result<Line, Refusal> {
        let mut pool = self.lock();
        if let Some(line) = pool.idle.pop() {
            return Ok(Line::Idle(line));
        }
        if pool.open < self.most {
            pool.open += 1;
            return Ok(Line::ToOpen);
        }
        let waiting = Waiting { request: std::mem::take(request), line: None };
        let turn = Arc::new(Turn { client, state: Mutex::new(waiting), come: Condvar::new() });
        pool.queue.push_back(Arc::clone(&turn));
        drop(pool);
        let (mut state, _) = turn
            .come
            .wait_timeout_while(lock(&turn.state), self.patience, |state| state.line.is_none())
            .unwrap_or_else(PoisonError::into_inner);
        if state.line.is_none() {
            drop(state);
            // Out of the queue first: after that nobody can hand a line over any more.
            self.lock().queue.retain(|other| !Arc::ptr_eq(other, &turn));
            state = lock(&turn.state);
        }
        *request = std::mem::take(&mut state.request);
        match state.line.take() {
            Some(Line::ClientGone) | None => Err(Refusal::NO_ANSWER),
            Some(line) => Ok(line),
        }
    }

    /// Gives a connection, or the right to open one, to the next in the queue, whose
    /// request is sent right away: tiny_http need not wait until that thread is awake.
    fn give_back(&self, line: Option<UnixStream>) {
        let turn = loop {
            let mut pool = self.lock();
            let Some(turn) = pool.queue.pop_front() else {
                match line {
                    Some(line) => pool.idle.push(line),
                    None => pool.open -= 1,
                }
                return;
            };
            drop(pool);
            if !turn.client.as_ref().is_some_and(Presence::has_gone) {
                break turn;
            }
            lock(&turn.state).line = Some(Line::ClientGone);
            turn.come.notify_one();
        };
        let mut state = lock(&turn.state);
        state.line = Some(match line {
            None => Line::ToOpen,
            Some(line) if state.request.len() > SENT_AHEAD => Line::Idle(line),
            Some(line) => {
                match send(&line, &state.request, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
                    Ok(sent) if sent == state.request.len() => Line::Sent(line),
                    // Dropped, and with it what may have been sent: not a whole request.
                    _ => Line::ToOpen,
                }
            }
        });
        drop(state);
        turn.come.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Pool> {
        lock(&self.pool)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing in here is left half done by a panic.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Gives the connection back, whatever happens.
struct Lease<'r> {
    relay: &'r Relay,
    line: Option<UnixStream>,
}

impl Lease<'_> {
    fn settle(mut self, result: Result<Answer, Trouble>) -> Result<Answer, Refusal> {
        result.map_err(|trouble| {
            // Nobody knows what would still come over it.
            self.line = None;
            log::warn!("a request got no answer over the relay: {trouble:?}");
            match trouble {
                Trouble::NotSent => Refusal::NO_ANSWER,
                Trouble::Broken => Refusal::BAD_ANSWER,
                Trouble::TooSlow => Refusal::NO_ANSWER_IN_TIME,
            }
        })
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        self.relay.give_back(self.line.take());
    }
}

#[derive(Debug)]
enum Trouble {
    /// The other side had closed before it could read the request.
    NotSent,
    /// The answer ended early, or is none.
    Broken,
    TooSlow,
}

fn converse(
    line: &UnixStream,
    request: &[u8],
    to_head: bool,
    until: Instant,
) -> Result<Answer, Trouble> {
    let mut received = Vec::new();
    send_all(line, request, &mut received, until)?;
    receive(line, received, to_head, until)
}

/// Reads the rest of an answer, of which some may have been received already.
fn receive(
    line: &UnixStream,
    mut received: Vec<u8>,
    to_head: bool,
    until: Instant,
) -> Result<Answer, Trouble> {
    let head = loop {
        match rewrite::answer(&received, to_head).map_err(|_| Trouble::Broken)? {
            Some(head) => break head,
            None if received.len() < MAX_ANSWER => read_more(line, &mut received, until)?,
            None => return Err(Trouble::Broken),
        }
    };
    let whole = head.received.saturating_add(head.body);
    if whole > MAX_ANSWER {
        return Err(Trouble::Broken);
    }
    received.reserve_exact(whole.saturating_sub(received.len()));
    while received.len() < whole {
        // tiny_http writes head and body apart: the rest is about to come.
        thread::yield_now();
        read_more(line, &mut received, until)?;
    }
    if received.len() > whole {
        return Err(Trouble::Broken);
    }
    Ok(Answer { head, received })
}

/// Sends the request, and reads meanwhile: tiny_http may write a long answer
/// before it has read a long body, and then neither side must wait for the other.
fn send_all(
    line: &UnixStream,
    mut request: &[u8],
    received: &mut Vec<u8>,
    until: Instant,
) -> Result<(), Trouble> {
    let mut sent_any = false;
    while !request.is_empty() {
        match send(line, request, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
            Ok(n) => {
                request = &request[n..];
                sent_any = true;
            }
            Err(Errno::AGAIN) => {
                let mut fds = [PollFd::new(line, PollFlags::IN | PollFlags::OUT)];
                match poll(&mut fds, Some(&remaining(until)?)) {
                    Ok(_) | Err(Errno::INTR) => {}
                    Err(_) => return Err(Trouble::Broken),
                }
                if fds[0].revents().contains(PollFlags::IN) {
                    if received.len() >= MAX_ANSWER {
                        return Err(Trouble::Broken);
                    }
                    read_more(line, received, until)?;
                }
            }
            Err(Errno::INTR) => {}
            Err(_) if !sent_any && received.is_empty() => return Err(Trouble::NotSent),
            Err(_) => return Err(Trouble::Broken),
        }
    }
    Ok(())
}

fn read_more(line: &UnixStream, received: &mut Vec<u8>, until: Instant) -> Result<(), Trouble> {
    if received.len() == received.capacity() {
        received.reserve(ANSWER_ROOM);
    }
    loop {
        match recv(line, spare_capacity(received), RecvFlags::DONTWAIT) {
            Ok((0, _)) => return Err(Trouble::Broken),
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => continue,
            Err(Errno::AGAIN) => {}
            Err(_) => return Err(Trouble::Broken),
        }
        let mut fds = [PollFd::new(line, PollFlags::IN)];
        match poll(&mut fds, Some(&remaining(until)?)) {
            Ok(0) => return Err(Trouble::TooSlow),
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => return Err(Trouble::Broken),
        }
    }
}

fn remaining(until: Instant) -> Result<Timespec, Trouble> {
    let rest = until.saturating_duration_since(Instant::now());
    if rest.is_zero() {
        return Err(Trouble::TooSlow);
    }
    Timespec::try_from(rest).map_err(|_| Trouble::TooSlow)
}

#[cfg(test)]
mod tests;
