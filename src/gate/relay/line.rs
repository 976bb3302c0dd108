//! One connection to tiny_http, with its requests under way.

use super::super::rewrite::{self, AnswerHead};
use super::{Answer, Trouble, lock};
use rustix::buffer::spare_capacity;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use std::collections::VecDeque;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Room for what is read at once: a few usual answers. Kept while the line is open.
const INBOX: usize = 64 * 1024;

/// How long somebody who cannot send waits before it looks whether it should read.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Bytes in an answer. What is larger belongs into a file (`X-Gate-File`).
const MAX_ANSWER: usize = 32 * 1024 * 1024;

/// See [`super::Relay`].
pub(super) struct Line {
    stream: UnixStream,
    /// Held while a request is put into the line and sent, so that both have one order.
    sending: Mutex<()>,
    flow: Mutex<Flow>,
}

#[derive(Default)]
struct Flow {
    /// The requests that have no answer yet, in the order in which they were sent.
    waiting: VecDeque<Arc<Place>>,
    /// What was read and belongs to answers that are not whole yet. Whoever reads
    /// has taken it out.
    inbox: Vec<u8>,
    /// Whether somebody reads, or was told to.
    read: bool,
    broken: Option<Trouble>,
}

/// One request's place in the line.
struct Place {
    to_head: bool,
    state: Mutex<State>,
    come: Condvar,
}

enum State {
    Waiting,
    /// It is this one's turn to read, for itself and those behind it.
    Reads,
    Answered(Result<Answer, Trouble>),
    /// Its thread has taken the answer.
    Over,
}

impl Place {
    fn become_of(&self, state: State) {
        *lock(&self.state) = state;
        self.come.notify_one();
    }
}

impl Line {
    pub(super) fn new(stream: UnixStream) -> Self {
        Self { stream, sending: Mutex::default(), flow: Mutex::default() }
    }

    #[cfg(test)]
    pub(super) fn wait_for_close(&self) {
        let until = Instant::now() + std::time::Duration::from_secs(20);
        self.ready(PollFlags::IN, until).unwrap();
        assert_eq!(recv(&self.stream, &mut [0; 1][..], RecvFlags::PEEK).unwrap().0, 0);
    }

    pub(super) fn is_broken(&self) -> bool {
        lock(&self.flow).broken.is_some()
    }

    /// Sends a request and waits for its answer.
    ///
    pub(super) fn exchange(
        &self,
        request: &[u8],
        to_head: bool,
        until: Instant,
    ) -> Result<Answer, Trouble> {
        let place =
            Arc::new(Place { to_head, state: Mutex::new(State::Waiting), come: Condvar::new() });
        let sending = lock(&self.sending);
        {
            let mut flow = lock(&self.flow);
            if flow.broken.is_some() {
                // Somebody else found it broken, and sent nothing of ours.
                return Err(Trouble::NotSent);
            }
            flow.waiting.push_back(Arc::clone(&place));
        }
        let sent = self.send_all(request, &place, until);
        drop(sending);
        match sent {
            Err(trouble) => Err(self.fail(trouble)),
            Ok(reads) if reads || self.take_the_turn(&place) => self.read_for_all(&place, until),
            Ok(_) => self.wait(&place, until),
        }
    }

    /// Whether this place reads from now on: because it was told to, or because
    /// nobody does.
    fn take_the_turn(&self, place: &Place) -> bool {
        let mut flow = lock(&self.flow);
        if !flow.read && flow.broken.is_none() {
            flow.read = true;
            return true;
        }
        drop(flow);
        let mut state = lock(&place.state);
        let told = matches!(*state, State::Reads);
        if told {
            *state = State::Waiting;
        }
        told
    }

    /// Waits until somebody has read the answer, or for the turn to read.
    fn wait(&self, place: &Place, until: Instant) -> Result<Answer, Trouble> {
        let mut state = lock(&place.state);
        loop {
            match std::mem::replace(&mut *state, State::Over) {
                State::Waiting => *state = State::Waiting,
                State::Reads => {
                    drop(state);
                    return self.read_for_all(place, until);
                }
                State::Answered(result) => return result,
                State::Over => return Err(Trouble::Broken),
            }
            let rest = until.saturating_duration_since(Instant::now());
            if rest.is_zero() {
                drop(state);
                return Err(self.fail(Trouble::TooSlow));
            }
            state = place.come.wait_timeout(state, rest).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Reads answers and hands them out until this place has its own; then the next
    /// one in line reads on.
    fn read_for_all(&self, place: &Place, until: Instant) -> Result<Answer, Trouble> {
        let mut inbox = std::mem::take(&mut lock(&self.flow).inbox);
        loop {
            // An answer that was read by the one before.
            if let Err(trouble) = self.hand_out(&mut inbox) {
                return Err(self.fail(trouble));
            }
            let mut state = lock(&place.state);
            if let State::Answered(_) = *state {
                let State::Answered(result) = std::mem::replace(&mut *state, State::Over) else {
                    return Err(Trouble::Broken);
                };
                drop(state);
                self.pass_the_turn(inbox);
                return result;
            }
            drop(state);
            if let Err(trouble) = self.read_more(&mut inbox, until) {
                return Err(self.fail(trouble));
            }
        }
    }

    /// Gives every whole answer in the inbox to the request it belongs to.
    fn hand_out(&self, inbox: &mut Vec<u8>) -> Result<(), Trouble> {
        let mut used = 0;
        while used < inbox.len() {
            let Some(place) = lock(&self.flow).waiting.front().cloned() else {
                // An answer that nobody asked for.
                return Err(Trouble::Broken);
            };
            let Some((head, whole)) = whole_answer(&inbox[used..], place.to_head)? else { break };
            let body = inbox[used + head.received..used + whole].to_vec();
            used += whole;
            lock(&self.flow).waiting.pop_front();
            place.become_of(State::Answered(Ok(Answer { head, body })));
        }
        inbox.drain(..used);
        if inbox.is_empty() && inbox.capacity() > INBOX {
            *inbox = Vec::new();
        }
        Ok(())
    }

    fn pass_the_turn(&self, inbox: Vec<u8>) {
        let mut flow = lock(&self.flow);
        flow.inbox = inbox;
        let next = flow.waiting.front().cloned();
        flow.read = next.is_some();
        drop(flow);
        if let Some(next) = next {
            next.become_of(State::Reads);
        }
    }

    /// Ends the line: nobody knows what would still come over it. Gives what broke
    /// it first, which may have been something else.
    fn fail(&self, trouble: Trouble) -> Trouble {
        let (waiting, first) = {
            let mut flow = lock(&self.flow);
            let first = *flow.broken.get_or_insert(trouble);
            (std::mem::take(&mut flow.waiting), first)
        };
        // Wakes a reader too.
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
        // What was sent may have been handled: only its own client may ask again.
        let shared = if trouble == Trouble::NotSent { Trouble::Broken } else { trouble };
        for place in waiting {
            place.become_of(State::Answered(Err(shared)));
        }
        // Of the caller's own request some may have been sent, whatever came first.
        if first == Trouble::NotSent { trouble } else { first }
    }

    /// Sends a request, and tells whether it is this place's turn to read.
    ///
    /// The handler may write a long answer before it has read a long request; so
    /// that neither side waits for the other, whoever cannot send on sees to it that
    /// somebody reads.
    fn send_all(&self, mut request: &[u8], place: &Place, until: Instant) -> Result<bool, Trouble> {
        let (mut sent_any, mut reads) = (false, false);
        while !request.is_empty() {
            match send(&self.stream, request, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
                Ok(sent) => {
                    request = &request[sent..];
                    sent_any = true;
                }
                Err(Errno::AGAIN) => {
                    reads = reads || self.take_the_turn(place);
                    self.room_to_send(reads, until)?;
                }
                Err(Errno::INTR) => {}
                Err(_) if !sent_any => return Err(Trouble::NotSent),
                Err(_) => return Err(Trouble::Broken),
            }
        }
        Ok(reads)
    }

    /// Waits for room to send, and reads meanwhile if that is ours to do; else it
    /// looks again soon, for the turn may come while it waits.
    fn room_to_send(&self, reads: bool, until: Instant) -> Result<(), Trouble> {
        if !reads {
            let soon = until.min(Instant::now() + LOOK_AGAIN);
            return match self.ready(PollFlags::OUT, soon) {
                Err(Trouble::TooSlow) if Instant::now() < until => Ok(()),
                other => other.map(|_| ()),
            };
        }
        if self.ready(PollFlags::IN | PollFlags::OUT, until)?.contains(PollFlags::IN) {
            let mut inbox = std::mem::take(&mut lock(&self.flow).inbox);
            let result = self.read_more(&mut inbox, until);
            lock(&self.flow).inbox = inbox;
            return result;
        }
        Ok(())
    }

    fn read_more(&self, inbox: &mut Vec<u8>, until: Instant) -> Result<(), Trouble> {
        if inbox.len() >= MAX_ANSWER {
            return Err(Trouble::Broken);
        }
        if inbox.capacity() - inbox.len() < INBOX / 2 {
            inbox.reserve(INBOX);
        }
        if !inbox.is_empty() {
            // Of an answer that was begun the rest is about to come.
            thread::yield_now();
        }
        loop {
            match recv(&self.stream, spare_capacity(inbox), RecvFlags::DONTWAIT) {
                Ok((0, _)) => return Err(Trouble::Broken),
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    self.ready(PollFlags::IN, until)?;
                }
                Err(_) => return Err(Trouble::Broken),
            }
        }
    }

    fn ready(&self, what: PollFlags, until: Instant) -> Result<PollFlags, Trouble> {
        let rest = until.saturating_duration_since(Instant::now());
        if rest.is_zero() {
            return Err(Trouble::TooSlow);
        }
        let rest = Timespec::try_from(rest).map_err(|_| Trouble::TooSlow)?;
        let mut fds = [PollFd::new(&self.stream, what)];
        match poll(&mut fds, Some(&rest)) {
            Ok(0) => Err(Trouble::TooSlow),
            Ok(_) => Ok(fds[0].revents()),
            Err(Errno::INTR) => Ok(PollFlags::empty()),
            Err(_) => Err(Trouble::Broken),
        }
    }
}

/// The first answer in these bytes and its length, if it is whole.
fn whole_answer(bytes: &[u8], to_head: bool) -> Result<Option<(AnswerHead, usize)>, Trouble> {
    let Some(head) = rewrite::answer(bytes, to_head).map_err(|_| Trouble::Broken)? else {
        return Ok(None);
    };
    let whole = head.received.saturating_add(head.body);
    if whole > MAX_ANSWER {
        return Err(Trouble::Broken);
    }
    Ok((bytes.len() >= whole).then_some((head, whole)))
}
