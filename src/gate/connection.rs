//! One connection's life: request after request, in order, one at a time.

use super::head::{self, Fields, Head, Kind, MAX_HEAD, NO_FIELDS, Scan};
use super::permit::{Permit, Phase};
use super::refusal::Refusal;
use super::relay::Answer;
use super::upgrade::Upgrade;
use super::wire::{Stop, Wire};
use super::{Door, Source, body, rewrite};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::time::Instant;

/// First size of the buffer for heads, kept while the connection idles: a browser's
/// head fits, and 512 of them are half a MiB.
const SMALL: usize = 1024;

/// What a buffer for heads may grow to without being accounted for.
const UNCOUNTED: usize = 4 * 1024;

/// Serves a connection until it is over. `peer` is the other end's address.
pub(super) fn serve(door: &Door, permit: &Permit, peer: IpAddr) {
    let Ok(wire) = Wire::new(permit, door.limits.stall) else { return };
    let mut connection =
        Connection { door, permit, peer, wire, inbox: Vec::new(), first: true, to_head: false };
    let end = loop {
        match connection.next() {
            Ok(true) => {}
            Ok(false) => break None,
            Err(stop) => break Some(stop),
        }
    };
    if let Some(Stop::Refuse(refusal)) = &end {
        let answer = refusal.answer(connection.to_head);
        if connection.wire.send(&answer, b"", || {}).is_err() {
            return;
        }
    }
    // Nobody waits for a client that has gone, nor for anybody while the gate closes.
    let unread = !connection.inbox.is_empty();
    if end != Some(Stop::Quiet) && (end.is_some() || unread) && permit.enter(Phase::Waiting) {
        connection.inbox = Vec::new();
        connection.wire.linger(door.limits.linger);
    }
}

struct Connection<'d> {
    door: &'d Door,
    permit: &'d Permit,
    peer: IpAddr,
    wire: Wire<'d>,
    /// What was read and not yet used: a part of a head, or the next requests.
    inbox: Vec<u8>,
    first: bool,
    /// Whether the request being served is a `HEAD`, whose answer has no body.
    to_head: bool,
}

/// What is left to know of a request once its head was passed on.
struct Asked {
    head_length: usize,
    body_length: usize,
    keep_alive: bool,
    http11: bool,
    expects_continue: bool,
}

impl Connection<'_> {
    /// Serves one request. False when the connection is over, in good order.
    fn next(&mut self) -> Result<bool, Stop> {
        self.to_head = false;
        let head_length = self.read_head()?;
        self.to_head = self.inbox.starts_with(b"HEAD ");
        if !self.permit.enter(Phase::Running) {
            return Err(Stop::Quiet);
        }
        let mut request = Vec::with_capacity(head_length + 256);
        let mut fields: Fields<'_> = NO_FIELDS;
        let head =
            head::judge(&self.inbox[..head_length], &mut fields, self.door.limits.body_bytes)?;
        let source = self.source(&head);
        if head.websocket {
            let leftover = &self.inbox[head_length..];
            let upgrade = Upgrade::new(&head, leftover, source, self.permit)
                .map_err(|_| Refusal::NO_ANSWER)?;
            self.inbox = Vec::new();
            (self.door.upgrade)(upgrade);
            return Ok(false);
        }
        rewrite::request(&head, &source, &mut request);
        let asked = Asked {
            head_length,
            body_length: head.length,
            keep_alive: head.keep_alive,
            http11: head.http11,
            expects_continue: head.expects_continue,
        };
        self.read_body(&asked, &mut request)?;
        if !self.permit.enter(Phase::Relayed) {
            return Err(Stop::Quiet);
        }
        let answer = self.door.relay.exchange(&request, self.to_head)?;
        if answer.head.proved {
            self.permit.prove();
        }
        if !self.permit.enter(Phase::Running) {
            return Err(Stop::Quiet);
        }
        let keep_alive = asked.keep_alive && !self.permit.is_last();
        self.pass_on(answer, keep_alive, asked.http11)?;
        self.permit.hold(0);
        Ok(keep_alive && self.permit.enter(Phase::Waiting))
    }

    /// Reads until the inbox begins with a whole head, and gives its length.
    fn read_head(&mut self) -> Result<usize, Stop> {
        let limits = &self.door.limits;
        let mut until = self.first.then(|| Instant::now() + limits.head);
        self.first = false;
        let mut scan = Scan::default();
        let mut may_skip = true;
        loop {
            // RFC 9112, 2.2: one empty line before a request is forgiven.
            if may_skip && self.inbox.starts_with(b"\r\n") {
                self.inbox.drain(..2);
                scan = Scan::default();
                may_skip = false;
            }
            if !(may_skip && self.inbox == b"\r")
                && let Some(length) = scan.advance(&self.inbox)?
            {
                return Ok(length);
            }
            let idle = self.inbox.is_empty();
            if !idle && until.is_none() {
                until = Some(Instant::now() + limits.head);
            }
            let wait = until.map_or(limits.idle, |u| u.saturating_duration_since(Instant::now()));
            self.make_room();
            match self.wire.read(&mut self.inbox, wait) {
                Ok(0) => return Err(Stop::Quiet),
                Ok(_) => {}
                Err(Errno::AGAIN) if !idle => return Err(Refusal::TOO_SLOW.into()),
                Err(_) => return Err(Stop::Quiet),
            }
        }
    }

    /// Makes room in the inbox, and no more than a head may need.
    fn make_room(&mut self) {
        if self.inbox.is_empty() && self.inbox.capacity() > SMALL {
            self.inbox = Vec::new();
        }
        let (length, capacity) = (self.inbox.len(), self.inbox.capacity());
        if length == capacity {
            let next = (capacity * 4).clamp(SMALL, MAX_HEAD).max(length + 1);
            self.inbox.reserve_exact(next - length);
        }
        let capacity = self.inbox.capacity();
        self.permit.hold(if capacity > UNCOUNTED { capacity } else { 0 });
    }

    /// Who asks: the peer, or whom a trusted proxy names.
    fn source(&self, head: &Head<'_, '_>) -> Source {
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
        (self.door.resolve)(self.peer, &forwarded[..count], scheme)
    }

    /// Completes the request with its body, and takes both out of the inbox.
    fn read_body(&mut self, asked: &Asked, request: &mut Vec<u8>) -> Result<(), Stop> {
        let early = asked.body_length.min(self.inbox.len() - asked.head_length);
        let used = asked.head_length + early;
        request.extend_from_slice(&self.inbox[asked.head_length..used]);
        self.inbox.drain(..used);
        let rest = asked.body_length - early;
        if rest == 0 {
            return Ok(());
        }
        if asked.expects_continue {
            self.wire.send(b"HTTP/1.1 100 Continue\r\n\r\n", b"", || {})?;
        }
        body::read(&mut self.wire, self.permit, request, rest, self.door.limits.body)
    }

    /// Sends an answer, in one piece when it fits the kernel's buffer.
    fn pass_on(&self, answer: Answer, keep_alive: bool, http11: bool) -> Result<(), Stop> {
        let mut answer = answer;
        let mut head = std::mem::take(&mut answer.head.passed);
        let file = match &answer.head.file {
            Some(path) => Some(open(path).map_err(|error| {
                log::error!("the file of an answer cannot be read: {error}");
                Refusal::NO_FILE
            })?),
            None => None,
        };
        if let Some((_, length)) = &file {
            rewrite::push_length(&mut head, *length);
        }
        head.extend_from_slice(match (keep_alive, http11) {
            (true, true) => b"\r\n".as_slice(),
            (true, false) => b"Connection: keep-alive\r\n\r\n",
            (false, _) => b"Connection: close\r\n\r\n",
        });
        match file {
            Some((file, length)) => {
                drop(answer);
                self.wire.send(&head, b"", || {})?;
                if self.to_head { Ok(()) } else { self.send_file(&file, length) }
            }
            None => self.wire.send(&head, &answer.body, || self.permit.hold(answer.weight())),
        }
    }

    /// Streams a file; the kernel copies, so no memory of ours is held.
    fn send_file(&self, file: &File, length: u64) -> Result<(), Stop> {
        const PIECE: u64 = 1024 * 1024;
        let mut rest = length;
        while rest > 0 {
            let piece = usize::try_from(rest.min(PIECE)).unwrap_or(usize::MAX);
            match rustix::fs::sendfile(self.wire.fd(), file, None, piece) {
                // Shorter than announced: only the close can tell the client.
                Ok(0) => return Err(Stop::Quiet),
                Ok(sent) => rest -= sent as u64,
                Err(Errno::INTR) => {}
                Err(_) => return Err(Stop::Quiet),
            }
        }
        Ok(())
    }
}

/// Opens the file of an answer and tells its length in bytes. Never waits, also if
/// somebody put a FIFO there.
fn open(path: &Path) -> io::Result<(File, u64)> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    let about = file.metadata()?;
    if !about.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    Ok((file, about.len()))
}
