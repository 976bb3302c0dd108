//! The seats: who may stay connected when there is not room for all.

use crate::model::Client;
use crate::sync::{lock, wait_until};
use std::collections::BTreeMap;
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

/// Connections that were told to go and have not yet gone, beyond those that may stay. They
/// hear of it at once, so a handful is normal; the bound keeps threads and files countable.
const MAX_LEAVING: usize = 64;

/// How long a proof of the token counts on a connection. Not for ever: who held
/// connections with a token that was rotated since would keep the owner out with them.
/// A dashboard asks more often than this while it is looked at.
const PROOF_LIFETIME: Duration = Duration::from_secs(60);

/// How long it counts on a session, which ends by itself when the token is rotated.
const AS_LONG_AS_IT_LASTS: Duration = Duration::from_secs(u32::MAX as u64);

/// So long after it was accepted, a connection's first request may still be on its way. One that
/// is older and has sent none is kept open in advance, as browsers do.
pub(super) const FRESH: Duration = Duration::from_millis(500);

/// What a connection is doing, as far as its right to stay is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// It has been accepted, and its first request has not arrived whole.
    New,
    /// Nothing is owed to the client: it has its answer, and its next request is not whole.
    Waiting,
    /// A body comes in, an answer goes out, or an upgraded session runs.
    Running,
    /// The request is with the handler, which soon gives it back.
    Relayed,
    /// It was told to go.
    Gone,
}

/// One connection's place.
struct Seat {
    client: Client,
    counted: bool,
    stream: Arc<TcpStream>,
    phase: Phase,
    /// Since when it is in that phase.
    since: Instant,
    /// Until when its proof of the token counts.
    proved_until: Option<Instant>,
    /// Bytes of large buffers that this connection holds.
    held: usize,
}

impl Seat {
    fn stays(&self) -> bool {
        self.phase != Phase::Gone
    }

    /// Whether nothing is owed to it; a new one counts as `fresh` for so long.
    fn is_idle(&self, fresh: Duration) -> bool {
        match self.phase {
            Phase::New => self.since.elapsed() >= fresh,
            Phase::Waiting => true,
            Phase::Running | Phase::Relayed | Phase::Gone => false,
        }
    }

    /// Tells the connection to go: whatever read or write it is in ends.
    fn dismiss(&mut self) {
        self.phase = Phase::Gone;
        self.held = 0;
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

#[derive(Default)]
struct Seats {
    taken: BTreeMap<u64, Seat>,
    next: u64,
    closed: bool,
}

impl Seats {
    /// Tells the longest idle connection to go among those that `eligible` names and that
    /// have not proved the token. One whose request is with the handler goes only when there
    /// is no other. False when there is none.
    fn vacate(&mut self, eligible: impl Fn(&Seat) -> bool) -> bool {
        let now = Instant::now();
        let unproved = |seat: &Seat| seat.proved_until.is_none_or(|until| until <= now);
        let candidates =
            self.taken.values_mut().filter(|s| s.stays() && unproved(s) && eligible(s));
        let first = candidates.min_by_key(|s| (s.phase == Phase::Relayed, s.since));
        first.map(Seat::dismiss).is_some()
    }

    fn held(&self) -> usize {
        self.taken.values().map(|seat| seat.held).sum()
    }
}

/// All the seats of a gate.
pub(super) struct Admission {
    most: usize,
    most_per_client: usize,
    most_held: usize,
    seats: Mutex<Seats>,
    left: Condvar,
}

impl Admission {
    pub fn new(most: usize, most_per_client: usize, most_held: usize) -> Arc<Self> {
        let (seats, left) = (Mutex::default(), Condvar::new());
        Arc::new(Self { most, most_per_client, most_held, seats, left })
    }

    /// Admits a connection; one that idles makes room if need be. `counted` is
    /// false for a trusted proxy, which speaks for many clients.
    ///
    /// # Errors
    /// Gives the stream back when everybody who sits may stay.
    pub fn admit(
        self: &Arc<Self>,
        stream: TcpStream,
        client: Client,
        counted: bool,
    ) -> Result<Permit, TcpStream> {
        let mut seats = lock(&self.seats);
        if seats.closed || !self.has_room(&mut seats, client, counted) {
            return Err(stream);
        }
        let (id, stream) = (seats.next, Arc::new(stream));
        seats.next += 1;
        let seat = Seat {
            client,
            counted,
            stream: Arc::clone(&stream),
            phase: Phase::New,
            since: Instant::now(),
            proved_until: None,
            held: 0,
        };
        seats.taken.insert(id, seat);
        Ok(Permit { admission: Arc::clone(self), id, stream })
    }

    /// Whether there is room for one more connection of this client, made if need be.
    fn has_room(&self, seats: &mut Seats, client: Client, counted: bool) -> bool {
        let own = |seat: &Seat| seat.counted && seat.client == client;
        let staying = || seats.taken.values().filter(|seat| seat.stays());
        if counted && staying().filter(|seat| own(seat)).count() >= self.most_per_client {
            // One whose request is with the handler keeps its place until that is through: a
            // client must not fill the way out with its own.
            return seats.vacate(|seat| own(seat) && seat.phase != Phase::Relayed);
        }
        staying().count() < self.most || seats.vacate(|_| true)
    }

    /// Whether so many are on their way out that newcomers had better wait.
    pub fn is_crowded(&self) -> bool {
        lock(&self.seats).taken.len() >= self.most + MAX_LEAVING
    }

    /// Tells the longest idle connection that has not proved the token to go, for
    /// example because file descriptors ran out. False when there is none.
    pub fn evict_one(&self) -> bool {
        lock(&self.seats).vacate(|_| true)
    }

    fn prove(&self, id: u64, time: Duration) {
        if let Some(seat) = lock(&self.seats).taken.get_mut(&id) {
            seat.proved_until = Some(Instant::now() + time);
        }
    }

    /// Admits nobody any more and closes every connection to which nothing is owed; new ones
    /// that are `fresh` may still ask. First called by who accepts them, so that none of those is
    /// turned away.
    pub fn close(&self, fresh: Duration) {
        let mut seats = lock(&self.seats);
        seats.closed = true;
        seats.taken.values_mut().filter(|seat| seat.is_idle(fresh)).for_each(Seat::dismiss);
        self.left.notify_all();
    }

    /// Waits until nobody is admitted any more and the last connection has gone, or `until`;
    /// gives the number of those left.
    pub fn wait_until_empty(&self, until: Instant) -> usize {
        let is_taken = |seats: &mut Seats| !seats.closed || !seats.taken.is_empty();
        wait_until(until, &self.left, lock(&self.seats), is_taken).taken.len()
    }

    /// Shuts every connection down, whatever it is doing.
    pub fn abort_all(&self) {
        lock(&self.seats).taken.values_mut().for_each(Seat::dismiss);
    }
}

/// A connection's right to stay; its seat is free again when this is dropped.
pub(super) struct Permit {
    admission: Arc<Admission>,
    id: u64,
    stream: Arc<TcpStream>,
}

impl Permit {
    /// Counted from 0; no two connections of a gate have the same.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The client's socket.
    pub fn stream(&self) -> &Arc<TcpStream> {
        &self.stream
    }

    /// Says what the connection does from now on. False when it was told to go, and
    /// when it wants to wait for another request while the gate closes.
    #[must_use]
    pub fn enter(&self, phase: Phase) -> bool {
        let mut seats = lock(&self.admission.seats);
        let closed = seats.closed;
        let Some(seat) = seats.taken.get_mut(&self.id).filter(|seat| seat.stays()) else {
            return false;
        };
        (seat.phase, seat.since) = (phase, Instant::now());
        phase != Phase::Waiting || !closed
    }

    /// Whether the gate is closing, so that this answer is the connection's last.
    pub fn is_last(&self) -> bool {
        lock(&self.admission.seats).closed
    }

    /// Notes that this connection has proved the token just now: it is not evicted
    /// for [`PROOF_LIFETIME`].
    pub fn prove(&self) {
        self.admission.prove(self.id, PROOF_LIFETIME);
    }

    /// For an upgraded session, to note that its client has proved the token. This does not
    /// run out.
    pub fn proof(&self) -> impl Fn() + Send + use<> {
        let (admission, id) = (Arc::clone(&self.admission), self.id);
        move || admission.prove(id, AS_LONG_AS_IT_LASTS)
    }

    /// Notes how many bytes of large buffers this connection holds now. When all
    /// hold too much together, the longest idle unproved ones among those who hold
    /// any are told to go; who alone holds everything may stay.
    pub fn hold(&self, bytes: usize) {
        let mut seats = lock(&self.admission.seats);
        let Some(seat) = seats.taken.get_mut(&self.id).filter(|seat| seat.stays()) else {
            return;
        };
        let mut more = bytes > seat.held;
        seat.held = bytes;
        while more {
            let all = seats.held();
            more = all > self.admission.most_held
                && seats.vacate(|seat| seat.held > 0 && seat.held < all);
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        lock(&self.admission.seats).taken.remove(&self.id);
        self.admission.left.notify_all();
    }
}

#[cfg(test)]
mod tests;
