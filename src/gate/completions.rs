//! The way back into the event loop: for connections with which a worker is through,
//! and for the word that it is time to stop.

use super::connection::Connection;
use super::step::Next;
use crate::sync::{EventFd, lock};
use std::io;
use std::sync::Mutex;

/// How far stopping has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    Open,
    /// Nobody is accepted any more; what was begun is finished.
    Closing,
    /// The loop ends.
    End,
}

struct Pending {
    back: Vec<(Connection, Next)>,
    stage: Stage,
}

/// What others want of the event loop.
pub(super) struct Completions {
    /// Signalled when there is something to take.
    pub wake_up: EventFd,
    state: Mutex<Pending>,
}

impl Completions {
    pub fn new() -> io::Result<Self> {
        let state = Mutex::new(Pending { back: Vec::new(), stage: Stage::Open });
        Ok(Self { wake_up: EventFd::new()?, state })
    }

    /// Gives a connection back.
    pub fn give(&self, connection: Connection, next: Next) {
        let mut state = lock(&self.state);
        if state.stage < Stage::End {
            state.back.push((connection, next));
            drop(state);
            self.wake_up.signal();
        }
    }

    /// Says how far stopping has come.
    pub fn set(&self, stage: Stage) {
        let mut state = lock(&self.state);
        state.stage = stage;
        let late = if stage == Stage::End { std::mem::take(&mut state.back) } else { Vec::new() };
        drop(state);
        drop(late);
        self.wake_up.signal();
    }

    /// What was given back since the last call, and how far stopping has come.
    pub fn take(&self) -> (Vec<(Connection, Next)>, Stage) {
        self.wake_up.clear();
        let mut state = lock(&self.state);
        (std::mem::take(&mut state.back), state.stage)
    }
}
