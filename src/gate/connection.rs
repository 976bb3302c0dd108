//! One connection's life: request after request, in order, one at a time. What the
//! event loop does of it is here and never waits; the rest is in `blocking_io`.

use super::admission::{Permit, Phase};
use super::answer::{Answer, Body};
use super::client::Source;
use super::head::{self, Fields, MAX_HEAD, NO_FIELDS, Scan};
use super::refusal::Refusal;
use super::rewrite;
use super::upgrade::Upgrade;
use super::wire;
use super::{Context, GateLimits};
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use std::mem::take;
use std::net::IpAddr;
use std::time::Instant;

/// What a buffer for heads may keep while its connection idles: a browser's head fits,
/// and 512 of them are half a MiB.
const SMALL: usize = 1024;

/// What a buffer may grow to without being accounted for.
const UNCOUNTED: usize = 4 * 1024;

/// How a connection goes on.
pub(super) enum Step {
    /// With what the client sends next.
    Wait,
    /// With the answer to this request, which goes out over the line with this number.
    Relay(usize, Vec<u8>),
    /// In a worker.
    Work(Job),
    /// Not at all.
    Over,
}

/// What a worker does with a connection.
pub(super) enum Job {
    /// Sends an answer whose body is a file, or has yet to be made, or that is a refusal.
    Answer(Answer),
    /// Sends the rest of an answer.
    Rest(Vec<u8>),
    /// Serves a WebSocket.
    Upgrade(Upgrade),
}

/// Whose turn it is, and until when at most.
enum Turn {
    /// The client's, to ask for something.
    Idle(Instant),
    /// The client's, whose head must be whole by then.
    Head(Instant, Scan),
    /// The client's, whose body must be whole by then; the whole request has so many bytes.
    Body(Instant, usize),
    /// The handler's, over this line.
    Relayed(Instant, usize),
    /// A worker's.
    Busy,
}

/// A connection, wherever it is.
pub(super) struct Connection {
    pub permit: Permit,
    /// The other end; none is a proxy of our own.
    peer: Option<IpAddr>,
    turn: Turn,
    /// What was read and not yet used: a part of a head, or the next requests; or a request as
    /// it is passed on, whose body is not whole.
    pub inbox: Vec<u8>,
    /// Whether it is a `HEAD`, whose answer has no body.
    pub to_head: bool,
    /// Whether the connection goes on after its answer.
    pub keep_alive: bool,
    /// Whether the client comes over HTTPS, as far as its requests have shown.
    pub secure: bool,
}

impl Connection {
    /// A fresh connection.
    pub fn new(permit: Permit, peer: Option<IpAddr>, limits: &GateLimits, now: Instant) -> Self {
        Self {
            permit,
            peer,
            turn: Turn::Head(now + limits.head, Scan::default()),
            inbox: Vec::new(),
            to_head: false,
            keep_alive: false,
            // Our own router sends plain HTTP away by itself.
            secure: peer.is_none(),
        }
    }

    /// When [`Connection::expire`] is to be called.
    pub fn deadline(&self) -> Option<Instant> {
        match self.turn {
            Turn::Idle(until)
            | Turn::Head(until, _)
            | Turn::Body(until, _)
            | Turn::Relayed(until, _) => Some(until),
            Turn::Busy => None,
        }
    }

    /// The line over which its request waits for an answer.
    pub fn line(&self) -> Option<usize> {
        if let Turn::Relayed(_, line) = self.turn { Some(line) } else { None }
    }

    /// The client is late.
    pub fn expire(&mut self) -> Step {
        if self.inbox.is_empty() { Step::Over } else { self.refuse(Refusal::TOO_SLOW) }
    }

    /// Reads what is there, and no more than a head may need or a body has; `room` is a buffer.
    pub fn read(&mut self, context: &Context, room: &mut [u8], now: Instant) -> Step {
        let whole = if let Turn::Body(_, whole) = self.turn { whole } else { MAX_HEAD };
        let most = whole.saturating_sub(self.inbox.len()).clamp(1, room.len());
        match recv(self.permit.stream(), &mut room[..most], RecvFlags::DONTWAIT) {
            Ok((_, read @ 1..)) => self.inbox.extend_from_slice(&room[..read]),
            Err(Errno::AGAIN | Errno::INTR) => return Step::Wait,
            _ => return Step::Over,
        }
        self.account();
        self.advance(context, now)
    }

    fn account(&self) {
        let capacity = self.inbox.capacity();
        self.permit.hold(if capacity > UNCOUNTED { capacity } else { 0 });
    }

    /// Judges the next request, as far as it has come.
    fn advance(&mut self, context: &Context, now: Instant) -> Step {
        if let Turn::Idle(_) = self.turn
            && !self.inbox.is_empty()
        {
            self.turn = Turn::Head(now + context.limits.head, Scan::default());
        }
        let next = match &mut self.turn {
            Turn::Head(_, scan) => match scan.advance(&self.inbox) {
                Ok(Some(length)) => self.accept(context, length, now),
                Ok(None) => Ok(Step::Wait),
                Err(refusal) => Err(refusal),
            },
            Turn::Body(_, whole) if self.inbox.len() >= *whole => {
                let request = take(&mut self.inbox);
                Ok(self.relay(request, context, now))
            }
            _ => Ok(Step::Wait),
        };
        next.unwrap_or_else(|refusal| self.refuse(refusal))
    }

    /// Judges the head of so many bytes, and takes the request out of the inbox.
    fn accept(
        &mut self,
        context: &Context,
        head_length: usize,
        now: Instant,
    ) -> Result<Step, Refusal> {
        self.to_head = self.inbox.starts_with(b"HEAD ");
        let mut fields: Fields<'_> = NO_FIELDS;
        let head = head::judge(&self.inbox[..head_length], &mut fields, context.limits.body_bytes)?;
        // An empty line may stand before it.
        self.to_head = head.method == "HEAD";
        let forwarded: Vec<&[u8]> = head::values(head.fields, "x-forwarded-for").collect();
        let scheme = head::values(head.fields, "x-forwarded-proto").next_back();
        let source = Source::find(&context.trust, self.peer, &forwarded, scheme);
        self.secure = source.https;
        let early = head.length.min(self.inbox.len() - head_length);
        let (body, leftover) = self.inbox[head_length..].split_at(early);
        if head.websocket {
            let upgrade = Upgrade::new(&head, leftover, source, &self.permit)
                .map_err(|_| Refusal::NO_ANSWER)?;
            self.inbox = Vec::new();
            return Ok(Step::Work(Job::Upgrade(upgrade)));
        }
        self.keep_alive = head.keep_alive;
        let mut request = Vec::with_capacity(head_length + 256);
        rewrite::request(&head, &source, self.permit.id(), &context.also, &mut request);
        request.extend_from_slice(body);
        let (rest, asks) = (head.length - early, head.expects_continue);
        if rest == 0 {
            self.inbox.drain(..head_length + early);
            if self.inbox.is_empty() && self.inbox.capacity() > SMALL {
                self.inbox = Vec::new();
            }
            return Ok(self.relay(request, context, now));
        }
        self.turn = Turn::Body(now + context.limits.body, request.len() + rest);
        self.inbox = request;
        // A client that has read all before it has room for so little.
        let interim = b"HTTP/1.1 100 Continue\r\n\r\n";
        let is_sent = !asks
            || wire::send_now(self.permit.stream(), interim, b"").is_ok_and(|rest| rest.is_empty());
        Ok(if is_sent && self.permit.enter(Phase::Running) { Step::Wait } else { Step::Over })
    }

    /// A whole request goes to the handler: one that reads over the first line, one that
    /// changes something over the second.
    fn relay(&mut self, request: Vec<u8>, context: &Context, now: Instant) -> Step {
        let reads = request.starts_with(b"GET ") || request.starts_with(b"HEAD ");
        let line = usize::from(!reads);
        self.turn = Turn::Relayed(now + context.limits.answer, line);
        if self.permit.enter(Phase::Relayed) { Step::Relay(line, request) } else { Step::Over }
    }

    /// Sends the answer to the relayed request, or has a worker do so when that takes
    /// longer than this moment.
    pub fn answer(&mut self, answer: Answer, context: &Context, now: Instant) -> Step {
        self.turn = Turn::Busy;
        if answer.proved {
            self.permit.prove();
        }
        self.keep_alive &= !self.permit.is_last();
        let Body::Bytes(body) = &answer.body else { return Step::Work(Job::Answer(answer)) };
        let head = answer.head(body.len() as u64, self.secure, self.keep_alive);
        let body = if self.to_head { b"" } else { &**body };
        match wire::send_now(self.permit.stream(), &head, body) {
            Ok(rest) if rest.is_empty() => self.finish(context, now),
            Ok(rest) => Step::Work(Job::Rest(rest)),
            Err(_) => Step::Over,
        }
    }

    /// The request gets no answer but this one.
    pub fn refuse(&mut self, refusal: Refusal) -> Step {
        (self.turn, self.keep_alive) = (Turn::Busy, false);
        Step::Work(Job::Answer(refusal.into()))
    }

    /// Goes on after an answer.
    pub fn finish(&mut self, context: &Context, now: Instant) -> Step {
        self.account();
        self.keep_alive &= self.permit.enter(Phase::Waiting);
        if self.keep_alive {
            self.turn = Turn::Idle(now + context.limits.idle);
            return self.advance(context, now);
        }
        // What the client sent and nobody read would destroy the answer on its way.
        if self.inbox.is_empty() { Step::Over } else { Step::Work(Job::Rest(Vec::new())) }
    }
}
