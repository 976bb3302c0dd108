//! The way back into the event loop: for connections with which a worker is through,
//! and for the word that it is time to stop.

use super::connection::Connection;
use rustix::event::{EventfdFlags, eventfd};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

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
    bell: OwnedFd,
    state: Mutex<State>,
}

impl Returns {
    pub fn new() -> io::Result<Self> {
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let state = Mutex::new(State { back: Vec::new(), stage: Stage::Open });
        Ok(Self { bell, state })
    }

    /// Gives a connection back.
    pub fn give(&self, connection: Connection, next: Next) {
        let mut state = self.lock();
        if state.stage < Stage::End {
            state.back.push((connection, next));
            drop(state);
            self.ring();
        }
    }

    /// Says how far stopping has come.
    pub fn set(&self, stage: Stage) {
        let mut state = self.lock();
        state.stage = stage;
        let late = if stage == Stage::End { std::mem::take(&mut state.back) } else { Vec::new() };
        drop(state);
        drop(late);
        self.ring();
    }

    /// What was given back since the last call, and how far stopping has come.
    pub fn take(&self) -> (Vec<(Connection, Next)>, Stage) {
        // First the bell: who rings from here on is heard the next time.
        let _ = rustix::io::read(&self.bell, &mut [0; 8]);
        let mut state = self.lock();
        (std::mem::take(&mut state.back), state.stage)
    }

    /// What becomes readable when there is something to take.
    pub fn bell(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }

    fn ring(&self) {
        // It can only fail when it was rung very often already.
        let _ = rustix::io::write(&self.bell, &1_u64.to_ne_bytes());
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing in here is left half done by a panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
