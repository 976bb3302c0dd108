//! What takes longer than a moment, or may: an answer that the client's buffer has no room
//! for, one that is a file or has yet to be made, a refusal that is to be read, a WebSocket.
//! A worker's thread does it and waits as it likes; then the event loop has the
//! connection back.

use super::Context;
use super::admission::Phase;
use super::answer::{Answer, Body};
use super::completions::Completion;
use super::connection::{Connection, Job};
use super::refusal::Refusal;
use super::wire;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::sync::Arc;

/// Does the job, and gives the connection back unless it is over.
pub(super) fn work(context: &Context, mut connection: Connection, job: Job) {
    let stream = Arc::clone(connection.permit.stream());
    if stream.set_write_timeout(Some(context.limits.stall)).is_err() {
        return;
    }
    let sent = match job {
        Job::Answer(answer) => send_answer(&mut connection, answer),
        Job::Rest(rest) => {
            connection.permit.hold(rest.capacity());
            (&*stream).write_all(&rest)
        }
        Job::Upgrade(upgrade) => {
            (context.upgrade)(upgrade);
            // Nobody waits for that while the gate closes.
            let _ = connection.permit.enter(Phase::Waiting);
            return wire::linger(&stream, context.limits.linger);
        }
    };
    // An error: the client has gone, was told to go, or makes no progress.
    if sent.is_ok() && connection.keep_alive {
        context.completions.give(Completion::Back(connection));
    } else if sent.is_ok() && connection.permit.enter(Phase::Waiting) {
        // Nobody waits for that while the gate closes.
        connection.inbox = Vec::new();
        wire::linger(&stream, context.limits.linger);
    }
}

fn send_answer(connection: &mut Connection, answer: Answer) -> io::Result<()> {
    let Connection { permit, to_head, secure, keep_alive, .. } = connection;
    let file = if let Body::File(path) = &answer.body { Some(File::open(path)) } else { None };
    let ready = match file {
        Some(file) => file.and_then(|file| {
            let length = file.metadata()?.len();
            Ok((answer.head(length, *secure, *keep_alive), Some(file.take(length))))
        }),
        None => answer.whole(*to_head, *secure, *keep_alive).map(|whole| (whole, None)),
    };
    let (bytes, file) = ready.or_else(|error| {
        log::error!("the body of an answer cannot be read: {error}");
        *keep_alive = false;
        Answer::from(Refusal::NO_FILE).whole(*to_head, *secure, false).map(|whole| (whole, None))
    })?;
    permit.hold(bytes.capacity());
    let mut stream = &**permit.stream();
    stream.write_all(&bytes)?;
    if let Some(mut file) = file.filter(|_| !*to_head) {
        // The kernel copies, so no memory of ours is held.
        io::copy(&mut file, &mut stream)?;
        // Shorter than announced: only the close can tell the client.
        *keep_alive &= file.limit() == 0;
    }
    Ok(())
}
