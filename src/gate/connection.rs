//! One connection's life: request after request, in order, one at a time. What the
//! event loop does of it is here and never waits; the rest is in `blocking_io`.

use super::admission::{Permit, Phase};
use super::answer::{Answer, Body};
use super::head::{self, Fields, Head, Kind, MAX_HEAD, NO_FIELDS, Scan};
use super::refusal::Refusal;
use super::rewrite;
use super::step::{Job, Step};
use super::upgrade::Upgrade;
use super::wire::{self, Stop};
use super::{Context, GateLimits, Peer, Source};
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

/// What a buffer for heads may keep while its connection idles: a browser's head fits,
/// and 512 of them are half a MiB.
const SMALL: usize = 1024;

/// What a buffer for heads may grow to without being accounted for.
const UNCOUNTED: usize = 4 * 1024;

/// Whose turn it is.
enum Turn {
    /// The client's, to ask for something; until then at most.
    Idle(Instant),
    /// The client's, whose head must be whole by then.
    Head(Instant, Scan),
    /// Ours.
    Busy,
}

/// A connection, wherever it is.
pub(super) struct Connection {
    pub permit: Permit,
    /// The other end.
    peer: Peer,
    turn: Turn,
    /// What was read and not yet used: a part of a head, or the next requests.
    pub inbox: Vec<u8>,
    /// The number of the request that is served.
    pub number: u64,
    /// Whether it is a `HEAD`, whose answer has no body.
    pub to_head: bool,
    /// Whether the connection goes on after its answer.
    pub keep_alive: bool,
    /// Whether the client comes over HTTPS, as far as its requests have shown.
    pub secure: bool,
}

impl Connection {
    /// A fresh connection.
    pub fn new(permit: Permit, peer: Peer, limits: &GateLimits, now: Instant) -> Self {
        Self {
            permit,
            peer,
            turn: Turn::Head(now + limits.head, Scan::default()),
            inbox: Vec::new(),
            number: 0,
            to_head: false,
            keep_alive: false,
            // Our own router sends plain HTTP away by itself.
            secure: matches!(peer, Peer::Proxy),
        }
    }

    /// When [`Connection::expire`] is to be called.
    pub fn deadline(&self) -> Option<Instant> {
        match self.turn {
            Turn::Idle(until) | Turn::Head(until, _) => Some(until),
            Turn::Busy => None,
        }
    }

    /// The client is late.
    pub fn expire(&mut self) -> Step {
        if self.inbox.is_empty() { Step::Over } else { self.refuse(Refusal::TOO_SLOW) }
    }

    /// Reads what is there, and no more than a head may need; `room` is a buffer.
    pub fn read(&mut self, context: &Context, room: &mut [u8], now: Instant) -> Step {
        let most = MAX_HEAD.saturating_sub(self.inbox.len()).clamp(1, room.len());
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
        match self.next(context, now) {
            Ok(step) => step,
            Err(Stop::Refuse(refusal)) => self.refuse(refusal),
            Err(Stop::Quiet) => Step::Over,
        }
    }

    fn next(&mut self, context: &Context, now: Instant) -> Result<Step, Stop> {
        if let Turn::Idle(_) = self.turn
            && !self.inbox.is_empty()
        {
            self.turn = Turn::Head(now + context.limits.head, Scan::default());
        }
        let Turn::Head(_, scan) = &mut self.turn else { return Ok(Step::Wait) };
        match scan.advance(&self.inbox)? {
            Some(length) => self.accept(context, length),
            None => Ok(Step::Wait),
        }
    }

    /// Judges the head of so many bytes, and takes the request out of the inbox.
    fn accept(&mut self, context: &Context, head_length: usize) -> Result<Step, Stop> {
        self.to_head = self.inbox.starts_with(b"HEAD ");
        let mut fields: Fields<'_> = NO_FIELDS;
        let head = head::judge(&self.inbox[..head_length], &mut fields, context.limits.body_bytes)?;
        // An empty line may stand before it.
        self.to_head = head.method == "HEAD";
        let source = source(context, self.peer, &head);
        (self.turn, self.secure) = (Turn::Busy, source.https);
        let early = head.length.min(self.inbox.len() - head_length);
        let (body, leftover) = self.inbox[head_length..].split_at(early);
        if head.websocket {
            let upgrade = Upgrade::new(&head, leftover, source, &self.permit)
                .map_err(|_| Refusal::NO_ANSWER)?;
            self.inbox = Vec::new();
            return Ok(Step::Work(Job::Upgrade(upgrade)));
        }
        self.keep_alive = head.keep_alive;
        self.number = context.requests.fetch_add(1, Relaxed);
        let mut request = Vec::with_capacity(head_length + 256);
        rewrite::request(&head, &source, self.number, &context.also, &mut request);
        request.extend_from_slice(body);
        let (rest, asks) = (head.length - early, head.expects_continue);
        self.inbox.drain(..head_length + early);
        if self.inbox.is_empty() && self.inbox.capacity() > SMALL {
            self.inbox = Vec::new();
        }
        if rest > 0 {
            return Ok(Step::Work(Job::Body { request, rest, asks }));
        }
        Ok(self.relay(request))
    }

    /// A whole request goes to the handler.
    pub fn relay(&mut self, request: Vec<u8>) -> Step {
        if self.permit.enter(Phase::Relayed) { Step::Relay(request) } else { Step::Over }
    }

    /// Sends the answer to the relayed request, or has a worker do so when that takes
    /// longer than this moment.
    pub fn answer(&mut self, answer: Answer, context: &Context, now: Instant) -> Step {
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

/// Who asks: the peer, or whom a trusted proxy names.
fn source(context: &Context, peer: Peer, head: &Head<'_, '_>) -> Source {
    let of_kind = |wanted| head.fields.iter().filter(move |f| head::kind(f.name) == wanted);
    let forwarded: Vec<&[u8]> = of_kind(Kind::ForwardedFor).map(|f| f.value).collect();
    // The proxy next to us writes the last one.
    let scheme = of_kind(Kind::ForwardedProto).next_back().map(|f| f.value);
    (context.resolve)(peer, &forwarded, scheme)
}
