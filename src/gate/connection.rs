//! One connection's life: request after request, in order, one at a time. What the
//! event loop does of it is here and never waits; the rest is in `blocking_io`.

use super::admission::{Permit, Phase};
use super::head::{self, Fields, Head, Kind, MAX_HEAD, NO_FIELDS, Scan};
use super::poll::{ENDED, EventFlags};
use super::refusal::Refusal;
use super::rewrite::{self, AnswerHead};
use super::step::{Job, Step};
use super::upgrade::Upgrade;
use super::wire::{self, Stop};
use super::{Context, GateLimits, Peer, Source};
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use std::time::Instant;

/// What a buffer for heads may keep while its connection idles: a browser's head fits,
/// and 512 of them are half a MiB.
const SMALL: usize = 1024;

/// What a buffer for heads may grow to without being accounted for.
const UNCOUNTED: usize = 4 * 1024;

/// A connection, wherever it is.
pub(super) struct Connection {
    pub permit: Permit,
    /// The other end.
    pub peer: Peer,
    /// What was read and not yet used: a part of a head, or the next requests.
    pub inbox: Vec<u8>,
    /// Whether the request being served is a `HEAD`, whose answer has no body.
    pub to_head: bool,
    /// The request's method is none of those that only read (RFC 9110, 9.2.1).
    pub changes: bool,
    /// Whether it comes over HTTPS, as far as its requests have shown.
    pub secure: bool,
    /// When the head must be whole, or an idle connection ends.
    pub until: Instant,
    /// Whether the events of its socket are watched.
    pub watched: bool,
    /// Whether the time of the head runs already, and not that of idleness.
    head_begun: bool,
    scan: Scan,
    /// RFC 9112, 2.2: one empty line before a request is forgiven.
    may_skip: bool,
    /// Whether its request is in the relay.
    relayed: bool,
    keep_alive: bool,
    http11: bool,
    /// Whether reading may give something, and whether that is the end.
    readable: bool,
    ended: bool,
}

impl Connection {
    /// A fresh connection. Something may have come already.
    pub fn new(permit: Permit, peer: Peer, limits: &GateLimits, now: Instant) -> Self {
        Self {
            permit,
            peer,
            inbox: Vec::new(),
            to_head: false,
            changes: false,
            // Our own router sends plain HTTP away by itself.
            secure: matches!(peer, Peer::Proxy),
            until: now + limits.head,
            watched: false,
            head_begun: true,
            scan: Scan::default(),
            may_skip: true,
            relayed: false,
            keep_alive: false,
            http11: false,
            readable: true,
            ended: false,
        }
    }

    /// Notes what the kernel told of its socket. False when that changes nothing now.
    pub fn note(&mut self, flags: EventFlags) -> bool {
        self.readable = true;
        self.ended |= flags.intersects(ENDED);
        !self.relayed
    }

    /// Whether the client is late; then how it goes on.
    pub fn expire(&self, now: Instant) -> Option<Step> {
        (!self.relayed && self.until <= now).then(|| {
            if self.inbox.is_empty() {
                Step::Over
            } else {
                Step::Work(Job::Refuse(Refusal::TOO_SLOW))
            }
        })
    }

    /// When [`Connection::expire`] is to be called.
    pub fn deadline(&self) -> Option<Instant> {
        (!self.relayed).then_some(self.until)
    }

    /// Reads and judges the next request, as far as it has come. `room` is a buffer.
    pub fn advance(&mut self, context: &Context, room: &mut [u8], now: Instant) -> Step {
        match self.next(context, room, now) {
            Ok(step) => step,
            Err(Stop::Refuse(refusal)) => Step::Work(Job::Refuse(refusal)),
            Err(Stop::Quiet) => Step::Over,
        }
    }

    fn next(&mut self, context: &Context, room: &mut [u8], now: Instant) -> Result<Step, Stop> {
        loop {
            if let Some(length) = self.whole_head()? {
                return self.accept(context, length);
            }
            if !self.readable {
                if !self.inbox.is_empty() && !self.head_begun {
                    self.head_begun = true;
                    self.until = now + context.limits.head;
                }
                return Ok(Step::Wait);
            }
            self.read(room)?;
        }
    }

    /// The length of the head with which the inbox begins, if it is whole.
    fn whole_head(&mut self) -> Result<Option<usize>, Refusal> {
        if self.may_skip && self.inbox.starts_with(b"\r\n") {
            self.inbox.drain(..2);
            self.scan = Scan::default();
            self.may_skip = false;
        }
        if self.may_skip && self.inbox == b"\r" {
            return Ok(None);
        }
        self.scan.advance(&self.inbox)
    }

    /// Reads what is there, and no more than a head may need.
    fn read(&mut self, room: &mut [u8]) -> Result<(), Stop> {
        let most = MAX_HEAD.saturating_sub(self.inbox.len()).clamp(1, room.len());
        match recv(self.permit.stream(), &mut room[..most], RecvFlags::DONTWAIT) {
            Ok((_, 0)) => return Err(Stop::Quiet),
            Ok((_, read)) => {
                self.inbox.extend_from_slice(&room[..read]);
                // Less than there was room for: the kernel has no more (epoll(7)).
                self.readable = read == most || self.ended;
            }
            Err(Errno::AGAIN) => self.readable = false,
            Err(Errno::INTR) => {}
            Err(_) => return Err(Stop::Quiet),
        }
        let capacity = self.inbox.capacity();
        self.permit.hold(if capacity > UNCOUNTED { capacity } else { 0 });
        Ok(())
    }

    /// Judges the head of so many bytes, and takes the request out of the inbox.
    fn accept(&mut self, context: &Context, head_length: usize) -> Result<Step, Stop> {
        self.to_head = self.inbox.starts_with(b"HEAD ");
        self.changes = !self.to_head && !self.inbox.starts_with(b"GET ");
        if !self.permit.enter(Phase::Running) {
            return Err(Stop::Quiet);
        }
        let mut fields: Fields<'_> = NO_FIELDS;
        let head = head::judge(&self.inbox[..head_length], &mut fields, context.limits.body_bytes)?;
        let source = self.source(context, &head);
        let secure = source.https;
        if head.websocket {
            let leftover = &self.inbox[head_length..];
            let upgrade = Upgrade::new(&head, leftover, source, &self.permit)
                .map_err(|_| Refusal::NO_ANSWER)?;
            (self.inbox, self.secure) = (Vec::new(), secure);
            return Ok(Step::Work(Job::Upgrade(upgrade)));
        }
        let mut request = Vec::with_capacity(head_length + 256);
        rewrite::request(&head, &source, &context.also, &mut request);
        let (keep_alive, http11, asks) = (head.keep_alive, head.http11, head.expects_continue);
        let early = head.length.min(self.inbox.len() - head_length);
        let rest = head.length - early;
        (self.keep_alive, self.http11, self.secure) = (keep_alive, http11, secure);
        request.extend_from_slice(&self.inbox[head_length..head_length + early]);
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
        if !self.permit.enter(Phase::Relayed) {
            return Step::Over;
        }
        self.relayed = true;
        Step::Relay(request)
    }

    /// Who asks: the peer, or whom a trusted proxy names.
    fn source(&self, context: &Context, head: &Head<'_, '_>) -> Source {
        let mut forwarded: [&[u8]; head::MAX_FIELDS] = [b""; head::MAX_FIELDS];
        let mut count = 0;
        let mut scheme = None;
        for field in head.fields {
            match head::kind(field.name) {
                Kind::ForwardedFor => {
                    forwarded[count] = field.value;
                    count += 1;
                }
                // The proxy next to us writes the last one.
                Kind::ForwardedProto => scheme = Some(field.value),
                _ => {}
            }
        }
        (context.resolve)(self.peer, &forwarded[..count], scheme)
    }

    /// Sends the answer to the relayed request, or has a worker do so when that takes
    /// longer than this moment.
    pub fn answer(&mut self, head: AnswerHead, body: &[u8]) -> Result<bool, Step> {
        self.relayed = false;
        if head.proved {
            self.permit.prove();
        }
        let keep_alive = self.keep_alive && !self.permit.is_last();
        let ending = match (keep_alive, self.http11) {
            (true, true) => b"\r\n".as_slice(),
            (true, false) => b"Connection: keep-alive\r\n\r\n",
            (false, _) => b"Connection: close\r\n\r\n",
        };
        let job = if let Some(body) = head.elsewhere {
            Job::SendBody { body, head: head.passed, ending, keep_alive }
        } else {
            match wire::send_now(self.permit.stream(), [&head.passed, ending, body]) {
                Ok(rest) if rest.is_empty() => return Ok(keep_alive),
                Ok(rest) => Job::Rest { rest, keep_alive },
                Err(_) => return Err(Step::Over),
            }
        };
        Err(if self.permit.enter(Phase::Running) { Step::Work(job) } else { Step::Over })
    }

    /// The request gets no answer but this one.
    pub fn refuse(&mut self, refusal: Refusal) -> Step {
        self.relayed = false;
        let stays = self.permit.enter(Phase::Running);
        if stays { Step::Work(Job::Refuse(refusal)) } else { Step::Over }
    }

    /// Goes on after an answer.
    pub fn finish(
        &mut self,
        keep_alive: bool,
        context: &Context,
        room: &mut [u8],
        now: Instant,
    ) -> Step {
        self.permit.hold(0);
        if keep_alive && self.permit.enter(Phase::Waiting) {
            self.scan = Scan::default();
            self.may_skip = true;
            self.head_begun = false;
            self.until = now + context.limits.idle;
            return self.advance(context, room, now);
        }
        // What the client sent and nobody read would destroy the answer on its way.
        if self.inbox.is_empty() { Step::Over } else { Step::Work(Job::Linger) }
    }
}
