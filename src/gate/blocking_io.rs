//! What takes longer than a moment, or may: a body that is still to come, an answer
//! that the client's buffer has no room for, a refusal that is to be read, a WebSocket.
//! A worker's thread does it and waits as it likes; then the event loop has the
//! connection back.

use super::admission::Phase;
use super::connection::Connection;
use super::refusal::Refusal;
use super::rewrite::BodySource;
use super::step::{Job, Next};
use super::wire::{Stop, Wire};
use super::{Context, body, rewrite};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::path::Path;

/// A connection and what is to be done with it.
pub(super) struct Task {
    pub connection: Connection,
    pub job: Job,
}

/// Does the job, and gives the connection back unless it is over.
pub(super) fn work(context: &Context, task: Task) {
    let Task { mut connection, job } = task;
    match serve(context, &mut connection, job) {
        Ok(Some(next)) => context.completions.give(connection, next),
        Ok(None) => {}
        Err(Stop::Quiet) => {}
        Err(Stop::Refuse(refusal)) => {
            let answer = refusal.answer(connection.to_head, connection.secure);
            let wire = Wire::new(&connection.permit, context.limits.stall);
            if wire.and_then(|wire| wire.send(&answer)).is_ok() {
                linger(context, &mut connection);
            }
        }
    }
}

fn serve(context: &Context, connection: &mut Connection, job: Job) -> Result<Option<Next>, Stop> {
    let wire = || Wire::new(&connection.permit, context.limits.stall);
    match job {
        Job::Body { mut request, rest, asks } => {
            let mut wire = wire()?;
            if asks {
                wire.send(b"HTTP/1.1 100 Continue\r\n\r\n")?;
            }
            body::read(&mut wire, &connection.permit, &mut request, rest, context.limits.body)?;
            Ok(Some(Next::Relay(request)))
        }
        Job::Rest { rest, keep_alive } => {
            connection.permit.hold(rest.capacity());
            wire()?.send(&rest)?;
            Ok(Some(Next::Answered { keep_alive }))
        }
        Job::SendBody { body, head, ending, keep_alive } => {
            let to_head = connection.to_head;
            match body {
                BodySource::File(path) => {
                    let (file, length) = open(&path).map_err(lost)?;
                    let wire = wire()?;
                    wire.send(&with_length(head, length, ending))?;
                    if !to_head {
                        send_file(&wire, &file, length)?;
                    }
                }
                BodySource::Generated(name) => {
                    let made = (context.generate)(&name).map_err(lost)?;
                    connection.permit.hold(made.capacity());
                    let wire = Wire::new(&connection.permit, context.limits.stall)?;
                    wire.send(&with_length(head, made.len() as u64, ending))?;
                    if !to_head {
                        wire.send(&made)?;
                    }
                }
            }
            Ok(Some(Next::Answered { keep_alive }))
        }
        Job::Refuse(refusal) => Err(refusal.into()),
        Job::Linger => {
            linger(context, connection);
            Ok(None)
        }
        Job::Upgrade(upgrade) => {
            Wire::new(&connection.permit, context.limits.stall)?;
            (context.upgrade)(upgrade);
            Ok(None)
        }
    }
}

/// Closes so that the client can read its last answer. Nobody waits for that while
/// the gate closes.
fn linger(context: &Context, connection: &mut Connection) {
    connection.inbox = Vec::new();
    if connection.permit.enter(Phase::Waiting)
        && let Ok(mut wire) = Wire::new(&connection.permit, context.limits.stall)
    {
        wire.linger(context.limits.linger);
    }
}

fn lost(error: io::Error) -> Refusal {
    log::error!("the body of an answer cannot be read: {error}");
    Refusal::NO_FILE
}

/// A head that is whole but for the length of the body and its end.
fn with_length(mut head: Vec<u8>, length: u64, ending: &[u8]) -> Vec<u8> {
    rewrite::push_length(&mut head, length);
    head.extend_from_slice(ending);
    head
}

/// Streams a file; the kernel copies, so no memory of ours is held.
fn send_file(wire: &Wire<'_>, file: &File, length: u64) -> Result<(), Stop> {
    const PIECE: u64 = 1024 * 1024;
    let mut rest = length;
    while rest > 0 {
        let piece = usize::try_from(rest.min(PIECE)).unwrap_or(usize::MAX);
        match rustix::fs::sendfile(wire.fd(), file, None, piece) {
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
