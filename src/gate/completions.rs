//! The way back into the event loop: for answers, for connections with which a worker is
//! through, and for the word that it is time to stop.

use super::answer::Answer;
use super::connection::Connection;
use crate::sync::{EventFd, lock};
use std::io;
use std::sync::Mutex;

/// What the event loop is told.
pub(super) enum Completion {
    /// The answer to the request with this number.
    Answer(u64, Answer),
    /// A worker has sent this connection's answer.
    Back(Connection),
    /// Nobody is accepted any more; what was begun is finished.
    Close,
    /// The loop ends.
    End,
}

/// What others want of the event loop.
pub struct Completions {
    /// Rung when there is something to take.
    pub(super) wake_up: EventFd,
    waiting: Mutex<Vec<Completion>>,
}

impl Completions {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self { wake_up: EventFd::new()?, waiting: Mutex::default() })
    }

    /// Answers the request with this number ([`super::rewrite::NUMBER`]). One whose client has
    /// gone, or has got another answer meanwhile, is left alone.
    pub fn answer(&self, number: u64, answer: Answer) {
        self.give(Completion::Answer(number, answer));
    }

    pub(super) fn give(&self, completion: Completion) {
        let mut waiting = lock(&self.waiting);
        let first = waiting.is_empty();
        waiting.push(completion);
        drop(waiting);
        // Under load many share a wake-up.
        if first {
            self.wake_up.signal();
        }
    }

    /// What was given since the last call, in its order.
    pub(super) fn take(&self) -> Vec<Completion> {
        self.wake_up.clear();
        std::mem::take(&mut lock(&self.waiting))
    }
}
