//! How a connection goes on: what the event loop, its connections and the workers tell one another.

use super::answer::Answer;
use super::upgrade::Upgrade;

/// How a connection goes on.
pub(super) enum Step {
    /// With what the client sends next.
    Wait,
    /// With the answer to this request.
    Relay(Vec<u8>),
    /// In a worker.
    Work(Job),
    /// Not at all.
    Over,
}

/// What a worker does with a connection.
pub(super) enum Job {
    /// Reads the rest of a request's body; the client may want to be asked for it.
    Body { request: Vec<u8>, rest: usize, asks: bool },
    /// Sends an answer whose body is a file, or has yet to be made, or that is a refusal.
    Answer(Answer),
    /// Sends the rest of an answer.
    Rest(Vec<u8>),
    /// Serves a WebSocket.
    Upgrade(Upgrade),
}

/// How a connection goes on after a worker.
pub(super) enum Next {
    /// This request is whole.
    Relay(Vec<u8>),
    /// Its answer was sent.
    Answered,
}
