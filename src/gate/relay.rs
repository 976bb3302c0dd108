//! The way to tiny_http: one connection over its Unix socket that all requests share.
//!
//! Requests go out one behind the other without waiting for answers, and answers
//! come back in the same order (RFC 9112, 9.3.2): tiny_http and the one thread that
//! handles requests find the next one ready, so under load nobody has to be woken
//! for it. Of the threads that wait for an answer one reads for all of them, and
//! the next in line takes over once it has its own.
//!
//! The whole answer is read back before the caller gets any of it: the thread that
//! handles requests never waits for a client. And since everybody stands in one
//! line, a crowd of strangers delays the owner by one round of it and no more.

mod line;

use super::refusal::Refusal;
use super::rewrite::AnswerHead;
use line::Line;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// An answer, whole.
#[derive(Debug)]
pub(super) struct Answer {
    pub head: AnswerHead,
    pub body: Vec<u8>,
}

impl Answer {
    /// Bytes of memory that this answer takes.
    pub fn weight(&self) -> usize {
        self.body.capacity() + self.head.passed.capacity()
    }
}

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    /// The other side had closed before it could read any of the request.
    NotSent,
    /// The answer ended early, or is none.
    Broken,
    TooSlow,
}

/// The connection to tiny_http, opened when it is needed.
pub(super) struct Relay {
    path: PathBuf,
    patience: Duration,
    line: Mutex<Option<Arc<Line>>>,
}

impl Relay {
    /// An answer may take `patience`.
    pub fn new(path: PathBuf, patience: Duration) -> Self {
        Self { path, patience, line: Mutex::default() }
    }

    /// Sends a request and reads its answer. `to_head` says that the method is
    /// `HEAD`, whose answer has no body.
    ///
    /// # Errors
    /// The [`Refusal`] that the client shall get instead.
    pub fn exchange(&self, request: &[u8], to_head: bool) -> Result<Answer, Refusal> {
        let until = Instant::now() + self.patience;
        let mut result = self.line()?.exchange(request, to_head, until);
        // It was closed while it idled, and none of the request was read: Unix sockets
        // tell so at once. A new connection may do better.
        if let Err(Trouble::NotSent) = result {
            result = self.line()?.exchange(request, to_head, until);
        }
        result.map_err(|trouble| {
            log::warn!("a request got no answer over the relay: {trouble:?}");
            match trouble {
                Trouble::NotSent => Refusal::NO_ANSWER,
                Trouble::Broken => Refusal::BAD_ANSWER,
                Trouble::TooSlow => Refusal::NO_ANSWER_IN_TIME,
            }
        })
    }

    /// The open line, or a new one when there is none or it is broken.
    fn line(&self) -> Result<Arc<Line>, Refusal> {
        let mut line = lock(&self.line);
        if let Some(line) = line.as_ref().filter(|line| !line.is_broken()) {
            return Ok(Arc::clone(line));
        }
        let opened = UnixStream::connect(&self.path).map(Line::new).map(Arc::new);
        let opened = opened.map_err(|error| {
            log::warn!("the relay socket cannot be reached: {error}");
            Refusal::NO_ANSWER
        })?;
        *line = Some(Arc::clone(&opened));
        Ok(opened)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing in here is left half done by a panic.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
