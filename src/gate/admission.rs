//! The seats: who may stay connected when there is not room for all.

use crate::model::Client;
use crate::sync::{lock, wait_until};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Instant;

/// Connections that were told to go and whose threads are not through yet. They
/// wake at once, so a handful is normal; the bound keeps threads countable.
pub(super) const MAX_LEAVING: usize = 64;

/// How long a proof of the token counts on a connection, in milliseconds. Not for
/// ever: who held connections with a token that was rotated since would keep the
/// owner out with them. A dashboard asks more often than this while it is looked at.
const PROOF_LIFETIME: u64 = 60_000;

/// What a connection is doing, as far as its right to stay is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Nothing is owed to the client: its next request has not arrived whole.
    Waiting = 0,
    /// A body comes in, an answer goes out, or an upgraded session runs.
    Running = 1,
    /// The request is with the handler, which soon gives it back.
    Relayed = 2,
    /// It was told to go.
    Gone = 3,
}

/// One connection's place.
struct Slot {
    stream: TcpStream,
    /// Milliseconds since the gate started, times four, plus the [`Phase`].
    state: AtomicU64,
    /// Until when its proof of the token counts, in milliseconds since the gate started.
    proved_until: AtomicU64,
    /// Bytes of large buffers that this connection holds.
    held: AtomicUsize,
}

struct Admitted {
    client: Client,
    counted: bool,
    seat: Arc<Slot>,
}

#[derive(Default)]
struct Slots {
    entries: Vec<Admitted>,
    leaving: usize,
}

/// Why a connection was not seated.
#[derive(Debug)]
pub(super) enum NoSlot {
    /// Everybody who sits may stay.
    Free(TcpStream),
    /// One could make room, but too many are on their way out already.
    Yet(TcpStream),
}

/// All the seats of a gate.
pub(super) struct Admission {
    most: usize,
    most_per_client: usize,
    most_held: usize,
    start: Instant,
    held: AtomicUsize,
    closed: AtomicBool,
    table: Mutex<Slots>,
    left: Condvar,
}

impl Admission {
    pub fn new(most: usize, most_per_client: usize, most_held: usize) -> Arc<Self> {
        Arc::new(Self {
            most,
            most_per_client,
            most_held,
            start: Instant::now(),
            held: AtomicUsize::new(0),
            closed: AtomicBool::new(false),
            table: Mutex::default(),
            left: Condvar::new(),
        })
    }

    /// Admits a connection; one that idles makes room if need be. `counted` is
    /// false for a trusted proxy, which speaks for many clients.
    ///
    /// # Errors
    /// Gives the stream back, and says whether it is worth asking again.
    pub fn admit(
        self: &Arc<Self>,
        stream: TcpStream,
        client: Client,
        counted: bool,
    ) -> Result<Permit, NoSlot> {
        let mut table = lock(&self.table);
        if !self.has_room(&mut table, client, counted) {
            let later = table.leaving >= MAX_LEAVING && !self.is_closed();
            return Err(if later { NoSlot::Yet(stream) } else { NoSlot::Free(stream) });
        }
        let seat = Arc::new(Slot {
            stream,
            state: AtomicU64::new(self.state(Phase::Waiting)),
            proved_until: AtomicU64::new(0),
            held: AtomicUsize::new(0),
        });
        table.entries.push(Admitted { client, counted, seat: Arc::clone(&seat) });
        Ok(Permit { seats: Arc::clone(self), seat })
    }

    /// Whether there is room for one more connection of this client, made if need be.
    fn has_room(&self, table: &mut Slots, client: Client, counted: bool) -> bool {
        let own = |e: &Admitted| e.counted && e.client == client;
        let share = if counted { table.entries.iter().filter(|e| own(e)).count() } else { 0 };
        if self.is_closed() {
            false
        } else if share >= self.most_per_client {
            self.vacate(table, own)
        } else {
            table.entries.len() < self.most || self.vacate(table, |_| true)
        }
    }

    /// Tells the longest idle connection that has not proved the token to go, for
    /// example because file descriptors ran out. False when there is none.
    pub fn evict_one(&self) -> bool {
        self.vacate(&mut lock(&self.table), |_| true)
    }

    /// Frees one seat among those that `eligible` names. A connection whose request
    /// is with the handler goes only when there is no other.
    fn vacate(&self, table: &mut Slots, eligible: impl Fn(&Admitted) -> bool) -> bool {
        if table.leaving >= MAX_LEAVING {
            return false;
        }
        let now = self.now();
        // Its state may change between the look and the grab: look again then.
        for _ in 0..8 {
            let candidates = table.entries.iter().enumerate().filter(|(_, e)| {
                e.seat.proved_until.load(Relaxed) <= now
                    && e.seat.phase() != Phase::Gone
                    && eligible(e)
            });
            let Some((at, state)) = candidates
                .map(|(at, e)| (at, e.seat.state.load(Relaxed)))
                .min_by_key(|(_, state)| (phase_of(*state) == Phase::Relayed, state >> 2))
            else {
                return false;
            };
            if table.entries[at].seat.dismiss(state) {
                let entry = table.entries.swap_remove(at);
                self.held.fetch_sub(entry.seat.held.swap(0, Relaxed), Relaxed);
                table.leaving += 1;
                return true;
            }
        }
        false
    }

    /// Admits nobody any more and closes every connection to which nothing is owed.
    pub fn close(&self) {
        let table = lock(&self.table);
        // First the flag, then the look: a thread that begins to wait in between sees it.
        self.closed.store(true, SeqCst);
        for entry in &table.entries {
            let state = entry.seat.state.load(SeqCst);
            if phase_of(state) == Phase::Waiting {
                entry.seat.dismiss(state);
            }
        }
    }

    /// Whether [`Admission::close`] was called.
    pub fn is_closed(&self) -> bool {
        self.closed.load(SeqCst)
    }

    /// Waits until the last connection has gone; false when it has not by `until`.
    pub fn wait_until_empty(&self, until: Instant) -> bool {
        let is_taken = |table: &mut Slots| !table.entries.is_empty() || table.leaving > 0;
        !is_taken(&mut wait_until(until, &self.left, lock(&self.table), is_taken))
    }

    /// Shuts every connection down, whatever it is doing.
    pub fn abort_all(&self) {
        for entry in &lock(&self.table).entries {
            let _ = entry.seat.stream.shutdown(Shutdown::Both);
        }
    }

    #[cfg(test)]
    pub fn count(&self) -> usize {
        let table = lock(&self.table);
        table.entries.len() + table.leaving
    }

    #[cfg(test)]
    pub fn held(&self) -> usize {
        self.held.load(Relaxed)
    }

    /// Milliseconds since the gate started.
    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX >> 2)
    }

    fn state(&self, phase: Phase) -> u64 {
        self.now() << 2 | phase as u64
    }
}

fn phase_of(state: u64) -> Phase {
    match state & 3 {
        0 => Phase::Waiting,
        1 => Phase::Running,
        2 => Phase::Relayed,
        _ => Phase::Gone,
    }
}

impl Slot {
    fn phase(&self) -> Phase {
        phase_of(self.state.load(Relaxed))
    }

    /// Tells the connection to go, unless its state is no longer the given one.
    /// Its thread wakes from whatever read or write it is in.
    fn dismiss(&self, state: u64) -> bool {
        let gone = self.state.compare_exchange(state, Phase::Gone as u64, Relaxed, Relaxed).is_ok();
        if gone {
            let _ = self.stream.shutdown(Shutdown::Both);
        }
        gone
    }
}

/// A connection's right to stay; its seat is free again when this is dropped.
pub(super) struct Permit {
    seats: Arc<Admission>,
    seat: Arc<Slot>,
}

impl Permit {
    /// The client's socket.
    pub fn stream(&self) -> &TcpStream {
        &self.seat.stream
    }

    /// Says what the connection does from now on. False when it was told to go, and
    /// when it wants to wait for another request while the gate closes.
    #[must_use]
    pub fn enter(&self, phase: Phase) -> bool {
        let next = self.seats.state(phase);
        let mut state = self.seat.state.load(Relaxed);
        while phase_of(state) != Phase::Gone {
            match self.seat.state.compare_exchange_weak(state, next, SeqCst, Relaxed) {
                Ok(_) => return phase != Phase::Waiting || !self.seats.is_closed(),
                Err(now) => state = now,
            }
        }
        false
    }

    /// Whether the gate is closing, so that this answer is the connection's last.
    pub fn is_last(&self) -> bool {
        self.seats.is_closed()
    }

    /// Notes that this connection has proved the token just now: it is not evicted
    /// for [`PROOF_LIFETIME`].
    pub fn prove(&self) {
        self.seat.proved_until.store(self.seats.now() + PROOF_LIFETIME, Relaxed);
    }

    /// A handle to prove the token later.
    pub fn proof(&self) -> Proof {
        Proof(Arc::clone(&self.seat))
    }

    /// Notes how many bytes of large buffers this connection holds now. When all
    /// hold too much together, the longest idle unproved ones among those who hold
    /// any are told to go; who alone holds everything may stay.
    pub fn hold(&self, bytes: usize) {
        let before = self.seat.held.load(Relaxed);
        if before == bytes || self.seat.phase() == Phase::Gone {
            return;
        }
        let mut table = lock(&self.seats.table);
        // Once it is gone, `vacate` has taken its bytes off already.
        if self.seat.phase() == Phase::Gone {
            return;
        }
        self.seat.held.store(bytes, Relaxed);
        self.seats.held.fetch_sub(before, Relaxed);
        self.seats.held.fetch_add(bytes, Relaxed);
        while self.seats.held.load(Relaxed) > self.seats.most_held
            && self.seats.vacate(&mut table, |e| {
                let held = e.seat.held.load(Relaxed);
                held > 0 && held < self.seats.held.load(Relaxed)
            })
        {}
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut table = lock(&self.seats.table);
        if let Some(at) = table.entries.iter().position(|e| Arc::ptr_eq(&e.seat, &self.seat)) {
            table.entries.swap_remove(at);
            self.seats.held.fetch_sub(self.seat.held.swap(0, Relaxed), Relaxed);
        } else {
            table.leaving -= 1;
        }
        drop(table);
        self.seats.left.notify_all();
    }
}

/// Lets an upgraded session say that its client has proved the token. Until then
/// the connection may have to make room for another.
#[derive(Clone)]
pub struct Proof(Arc<Slot>);

impl Proof {
    /// Notes that the client has proved the token. This proof does not run out: a
    /// session ends by itself when the token is rotated.
    pub fn prove(&self) {
        self.0.proved_until.store(u64::MAX, Relaxed);
    }
}

impl std::fmt::Debug for Proof {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Proof").field(&self.0.proved_until.load(Relaxed)).finish()
    }
}

#[cfg(test)]
mod tests;
