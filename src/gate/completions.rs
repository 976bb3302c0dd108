//! The way back into the event loop: for connections with which a worker is through,
//! and for the word that it is time to stop.

use super::connection::Connection;
use crate::sync::{Bell, lock};
use std::io;
use std::sync::Mutex;

/// How a connection goes on after a worker.
pub(super) enum Next {
    /// This request is whole.
    Relay(Vec<u8>),
    /// Its answer was sent.
    Answered { keep_alive: bool },
}

/// How far stopping has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    Open,
    /// Nobody is accepted any more; what was begun is finished.
    Closing,
    /// The loop ends.
    End,
}

struct State {
    back: Vec<(Connection, Next)>,
    stage: Stage,
}

/// What others want of the event loop.
pub(super) struct Returns {
    /// Rung when there is something to take.
    pub bell: Bell,
    state: Mutex<State>,
}

impl Returns {
    pub fn new() -> io::Result<Self> {
        let state = Mutex::new(State { back: Vec::new(), stage: Stage::Open });
        Ok(Self { bell: Bell::new()?, state })
    }

    /// Gives a connection back.
    pub fn give(&self, connection: Connection, next: Next) {
        let mut state = lock(&self.state);
        if state.stage < Stage::End {
            state.back.push((connection, next));
            drop(state);
            self.bell.ring();
        }
    }

    /// Says how far stopping has come.
    pub fn set(&self, stage: Stage) {
        let mut state = lock(&self.state);
        state.stage = stage;
        let late = if stage == Stage::End { std::mem::take(&mut state.back) } else { Vec::new() };
        drop(state);
        drop(late);
        self.bell.ring();
    }

    /// What was given back since the last call, and how far stopping has come.
    pub fn take(&self) -> (Vec<(Connection, Next)>, Stage) {
        self.bell.silence();
        let mut state = lock(&self.state);
        (std::mem::take(&mut state.back), state.stage)
    }
}
