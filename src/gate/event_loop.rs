//! The event loop: one thread that has every connection of which nothing but the next
//! event is awaited, and the two lines to tiny_http: who only wants to see something waits
//! for no one who changes something.
//!
//! A request that comes in one piece and whose answer goes out in one piece meets no
//! other thread of the gate, and under load many of them share each wake-up. Whatever
//! takes longer goes to a worker, and comes back. Nothing in here waits but
//! [`Poll::wait`].

use super::accept::{Acceptor, turn_away};
use super::blocking_io::work;
use super::completions::Completion;
use super::connection::{Connection, Job, Step};
use super::poll::{Event, Poll};
use super::refusal::Refusal;
use super::relay::Relay;
use super::{Context, admission::Phase, head::MAX_HEAD};
use std::collections::HashMap;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

/// What events are about; connections have their own numbers, from 0.
const COMPLETIONS: u64 = u64::MAX;
const LISTENERS: u64 = u64::MAX - 1;
const RELAYS: [u64; 2] = [u64::MAX - 2, u64::MAX - 3];

/// Bytes of a worker's stack. Only touched pages cost memory: a few for HTTP, more for a
/// WebSocket session, whose library wants room.
const STACK: usize = 256 * 1024;

/// The loop's own state.
pub(super) struct EventLoop {
    context: Arc<Context>,
    acceptor: Acceptor,
    /// For requests that read, and for those that change something.
    relays: [Relay; 2],
    poll: Poll,
    connections: HashMap<u64, Connection>,
    /// No connection is late before this.
    next_late: Option<Instant>,
    /// When this round of the loop began.
    now: Instant,
    /// Where heads are read to.
    room: Vec<u8>,
    ended: bool,
}

impl EventLoop {
    pub fn new(context: Arc<Context>, acceptor: Acceptor, relay: &Path) -> io::Result<Self> {
        let poll = Poll::new()?;
        poll.watch(&context.completions.wake_up, COMPLETIONS)?;
        acceptor.watch(&poll, LISTENERS)?;
        let relays = RELAYS.map(|token| Relay::new(relay.to_owned(), token));
        Ok(Self {
            context,
            acceptor,
            relays,
            poll,
            connections: HashMap::new(),
            next_late: None,
            now: Instant::now(),
            room: vec![0; MAX_HEAD],
            ended: false,
        })
    }

    /// Serves until it is told to end. A panic is a bug; it ends the requests that are
    /// under way and not the gate.
    pub fn run(mut self) {
        while catch_unwind(AssertUnwindSafe(|| self.rounds())).is_err() {
            log::error!("the gate's event loop goes on after a panic");
            (0..RELAYS.len()).for_each(|at| self.give_up(at, Refusal::BAD_ANSWER));
        }
    }

    fn rounds(&mut self) {
        let mut events = Vec::new();
        while !self.ended {
            self.poll.wait(self.deadline(), &mut events);
            self.now = Instant::now();
            for event in &events {
                self.take(event);
            }
            self.accept();
            for at in 0..RELAYS.len() {
                if let Err(refusal) = self.relays[at].send(&self.poll) {
                    self.give_up(at, refusal);
                }
            }
            self.expire();
        }
    }

    /// When something is to be done even if nothing happens.
    fn deadline(&self) -> Option<Instant> {
        if self.relays.iter().any(Relay::is_ready) {
            return Some(self.now);
        }
        [self.next_late, self.acceptor.deadline(self.now)].into_iter().flatten().min()
    }

    fn take(&mut self, event: &Event) {
        match event.data.u64() {
            COMPLETIONS => {
                for completion in self.context.completions.take() {
                    self.complete(completion);
                }
            }
            LISTENERS => self.acceptor.note(),
            token => match RELAYS.iter().position(|relay| *relay == token) {
                Some(at) => {
                    if let Err(refusal) = self.relays[at].note(event.flags, &self.poll) {
                        self.give_up(at, refusal);
                    }
                }
                None => self.guarded(token, |this, connection| {
                    connection.read(&this.context, &mut this.room, this.now)
                }),
            },
        }
    }

    fn complete(&mut self, completion: Completion) {
        match completion {
            // Too late when it does not wait for one any more.
            Completion::Answer(id, answer) => {
                if self.connections.get(&id).is_some_and(|c| c.line().is_some()) {
                    self.guarded(id, |this, connection| {
                        connection.answer(answer, &this.context, this.now)
                    });
                }
            }
            Completion::Back(connection) => {
                let id = connection.permit.id();
                self.connections.insert(id, connection);
                self.guarded(id, |this, connection| connection.finish(&this.context, this.now));
            }
            Completion::Close => self.acceptor.close(),
            Completion::End => self.ended = true,
        }
    }

    fn accept(&mut self) {
        for (permit, peer) in self.acceptor.accept(self.now) {
            let id = permit.id();
            if self.poll.add(permit.stream(), id).is_ok() {
                let connection = Connection::new(permit, peer, &self.context.limits, self.now);
                self.keep(id, connection);
            }
        }
    }

    /// Ends what is late. Most connections are busy until their time has passed, so
    /// the next look is due when the first of those that were there could be late.
    fn expire(&mut self) {
        if self.next_late.is_none_or(|late| late > self.now) {
            return;
        }
        let deadlines = self.connections.iter().filter_map(|(id, c)| Some((c.deadline()?, *id)));
        let (late, others): (Vec<_>, Vec<_>) = deadlines.partition(|(at, _)| *at <= self.now);
        self.next_late = others.iter().map(|(at, _)| *at).min();
        for (_, id) in late {
            match self.connections.get(&id).and_then(Connection::line) {
                // The line is of no use then: what stands in it would pile up.
                Some(line) => self.give_up(line, Refusal::NO_ANSWER_IN_TIME),
                None => self.guarded(id, |_, connection| connection.expire()),
            }
        }
    }

    /// Ends a line to tiny_http; those who wait for an answer over it get this one.
    fn give_up(&mut self, line: usize, refusal: Refusal) {
        self.relays[line].give_up();
        let waiting = self.connections.iter().filter(|(_, c)| c.line() == Some(line));
        let lost: Vec<u64> = waiting.map(|(id, _)| *id).collect();
        if !lost.is_empty() {
            log::warn!("{} requests got no answer over the relay: {}", lost.len(), refusal.status);
        }
        for id in lost {
            self.guarded(id, |_, connection| connection.refuse(refusal));
        }
    }

    /// Does something with a connection, and what follows from it. A panic is a bug; it
    /// ends this connection and no other.
    fn guarded(&mut self, id: u64, work: impl FnOnce(&mut Self, &mut Connection) -> Step) {
        // Events of the past may name a connection that has gone.
        let Some(mut connection) = self.connections.remove(&id) else { return };
        let step = catch_unwind(AssertUnwindSafe(|| work(self, &mut connection)));
        match step {
            Ok(Step::Wait) => {
                if self.poll.again(connection.permit.stream(), id).is_ok() {
                    self.keep(id, connection);
                }
            }
            Ok(Step::Relay(line, request)) => {
                self.relays[line].push(&request);
                self.keep(id, connection);
            }
            Ok(Step::Work(job)) => self.hand_over(connection, job),
            Ok(Step::Over) => {}
            Err(_) => log::error!("a connection ended by a panic"),
        }
    }

    fn keep(&mut self, id: u64, connection: Connection) {
        self.next_late = self.next_late.into_iter().chain(connection.deadline()).min();
        self.connections.insert(id, connection);
    }

    /// Starts a worker. It ends with its part, and the gate does not end before its connection.
    fn hand_over(&mut self, connection: Connection, job: Job) {
        if !connection.permit.enter(Phase::Running) {
            return;
        }
        let (context, stream) = (Arc::clone(&self.context), Arc::clone(connection.permit.stream()));
        let worker = thread::Builder::new().name("gate-connection".to_owned()).stack_size(STACK);
        if let Err(error) = worker.spawn(move || work(&context, connection, job)) {
            log::warn!("no thread for another connection: {error}");
            turn_away(&stream);
            self.acceptor.make_room();
        }
    }
}
