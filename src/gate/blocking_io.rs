//! What takes longer than a moment, or may: a body that is still to come, an answer
//! that the client's buffer has no room for, a refusal that is to be read, a WebSocket.
//! A worker's thread does it and waits as it likes; then the event loop has the
//! connection back.

use super::Context;
use super::admission::{Permit, Phase};
use super::answer::{Answer, Body};
use super::completions::Completion;
use super::connection::Connection;
use super::refusal::Refusal;
use super::step::{Job, Next};
use super::wire::{self, Stop, send};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::net::TcpStream;
use std::path::Path;
use std::time::Instant;

/// First bytes to make room for in a body. The room grows with what has arrived and not with
/// what was announced: a client that sends nothing costs nothing.
const FIRST_STEP: usize = 2 * 1024;

/// Most bytes to make room for at once.
const MAX_STEP: usize = 64 * 1024;

/// Does the job, and gives the connection back unless it is over.
pub(super) fn work(context: &Context, mut connection: Connection, job: Job) {
    let next = match serve(context, &connection, job) {
        Ok(next) => next,
        Err(Stop::Quiet) => return,
        Err(Stop::Refuse(refusal)) => {
            connection.keep_alive = false;
            if send_answer(&connection, refusal.into()).is_err() {
                return;
            }
            Next::Answered
        }
    };
    if matches!(next, Next::Relay(_)) || connection.keep_alive {
        context.completions.give(Completion::Back(connection, next));
    } else if connection.permit.enter(Phase::Waiting) {
        // Nobody waits for that while the gate closes.
        connection.inbox = Vec::new();
        wire::linger(connection.permit.stream(), context.limits.linger);
    }
}

fn serve(context: &Context, connection: &Connection, job: Job) -> Result<Next, Stop> {
    let stream = connection.permit.stream();
    stream.set_write_timeout(Some(context.limits.stall)).map_err(|_| Stop::Quiet)?;
    match job {
        Job::Body { mut request, rest, asks } => {
            let until = Instant::now() + context.limits.body;
            if asks {
                send(stream, b"HTTP/1.1 100 Continue\r\n\r\n")?;
            }
            read_body(&connection.permit, &mut request, rest, until)?;
            Ok(Next::Relay(request))
        }
        Job::Answer(answer) => send_answer(connection, answer).map(|()| Next::Answered),
        Job::Rest(rest) => {
            connection.permit.hold(rest.capacity());
            send(stream, &rest).map(|()| Next::Answered)
        }
        Job::Upgrade(upgrade) => {
            (context.upgrade)(upgrade);
            Err(Stop::Quiet)
        }
    }
}

/// Reads `rest` bytes of body and appends them to `out`, which already holds the
/// head and the part of the body that came with it. Takes not a byte more: what
/// follows is the next request.
fn read_body(
    permit: &Permit,
    out: &mut Vec<u8>,
    mut rest: usize,
    until: Instant,
) -> Result<(), Stop> {
    while rest > 0 {
        let old = out.len();
        let step = rest.min(old.clamp(FIRST_STEP, MAX_STEP));
        out.resize(old + step, 0);
        permit.hold(out.capacity());
        let result = wire::read(permit.stream(), &mut out[old..], until);
        out.truncate(old + result.unwrap_or(0));
        match result {
            Ok(0) => return Err(Stop::Quiet),
            Ok(n) => rest -= n,
            Err(Errno::AGAIN) => return Err(Refusal::TOO_SLOW.into()),
            Err(_) => return Err(Stop::Quiet),
        }
    }
    Ok(())
}

fn send_answer(connection: &Connection, answer: Answer) -> Result<(), Stop> {
    let Connection { permit, to_head, secure, keep_alive, .. } = connection;
    let lost = |error: io::Error| {
        log::error!("the body of an answer cannot be read: {error}");
        Refusal::NO_FILE
    };
    if let Body::File(path) = &answer.body {
        let (file, length) = open(path).map_err(lost)?;
        send(permit.stream(), &answer.head(length, *secure, *keep_alive))?;
        return if *to_head { Ok(()) } else { send_file(permit.stream(), &file, length) };
    }
    let whole = answer.whole(*to_head, *secure, *keep_alive).map_err(lost)?;
    permit.hold(whole.capacity());
    send(permit.stream(), &whole)
}

/// Streams a file; the kernel copies, so no memory of ours is held.
fn send_file(stream: &TcpStream, file: &File, length: u64) -> Result<(), Stop> {
    const PIECE: u64 = 1024 * 1024;
    let mut rest = length;
    while rest > 0 {
        let piece = usize::try_from(rest.min(PIECE)).unwrap_or(usize::MAX);
        match rustix::fs::sendfile(stream, file, None, piece) {
            // Shorter than announced: only the close can tell the client.
            Ok(0) => return Err(Stop::Quiet),
            Ok(sent) => rest -= sent as u64,
            Err(Errno::INTR) => {}
            Err(_) => return Err(Stop::Quiet),
        }
    }
    Ok(())
}

/// Opens the file of an answer and tells its length in bytes. Never waits, also if
/// a FIFO was put there.
fn open(path: &Path) -> io::Result<(File, u64)> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    let about = file.metadata()?;
    if !about.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    Ok((file, about.len()))
}
