//! The event loop: one thread that has every connection of which nothing but the next
//! event is awaited, and the two lines to tiny_http: answers come in the order of the
//! requests, and who only wants to see something waits for no one who changes something.
//!
//! A request that comes in one piece and whose answer goes out in one piece meets no
//! other thread of the gate, and under load many of them share each wake-up. Whatever
//! takes longer goes to a worker, and comes back. Nothing in here waits but
//! [`Poll::wait`].

use super::accept::{Acceptor, turn_away};
use super::blocking_io::Task;
use super::completions::Stage;
use super::connection::Connection;
use super::poll::{Event, Poll};
use super::relay::Relay;
use super::rewrite::AnswerHead;
use super::step::{Job, Next, Step};
use super::workers::Workers;
use super::{Context, head::MAX_HEAD};
use std::collections::HashMap;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

/// What events are about: completions, the relays, the listeners, the connections.
const COMPLETIONS: u64 = 0;
const FIRST_RELAY: u64 = 1;
const FIRST_LISTENER: u64 = 3;
const FIRST_CONNECTION: u64 = 1 << 32;

/// The loop's own state.
pub(super) struct EventLoop {
    context: Arc<Context>,
    workers: Arc<Workers<Task>>,
    acceptor: Acceptor,
    /// For requests that read, and for those that change something.
    relays: [Relay; 2],
    poll: Poll,
    connections: HashMap<u64, Connection>,
    next_id: u64,
    /// No connection is late before this.
    next_late: Option<Instant>,
    /// When this round of the loop began.
    now: Instant,
    /// Where heads are read to.
    room: Vec<u8>,
    stage: Stage,
}

impl EventLoop {
    pub fn new(
        context: Arc<Context>,
        workers: Arc<Workers<Task>>,
        acceptor: Acceptor,
        relay: PathBuf,
    ) -> io::Result<Self> {
        let poll = Poll::new()?;
        poll.watch(&context.completions.wake_up, COMPLETIONS)?;
        acceptor.watch(&poll, FIRST_LISTENER)?;
        let relays = [FIRST_RELAY, FIRST_RELAY + 1]
            .map(|token| Relay::new(relay.clone(), token, context.limits.answer));
        Ok(Self {
            context,
            workers,
            acceptor,
            relays,
            poll,
            connections: HashMap::new(),
            next_id: FIRST_CONNECTION,
            next_late: None,
            now: Instant::now(),
            room: vec![0; MAX_HEAD],
            stage: Stage::Open,
        })
    }

    /// Serves until it is told to end. A panic is a bug; it ends the requests that are
    /// under way and not the gate.
    pub fn run(mut self) {
        while catch_unwind(AssertUnwindSafe(|| self.rounds())).is_err() {
            log::error!("the gate's event loop goes on after a panic");
            self.relays.iter_mut().for_each(Relay::give_up);
        }
    }

    fn rounds(&mut self) {
        let mut events = Vec::new();
        while self.stage < Stage::End {
            self.poll.wait(self.deadline(), &mut events);
            self.now = Instant::now();
            for event in &events {
                self.take(event);
            }
            self.accept();
            self.exchange(0);
            self.exchange(1);
            self.expire();
        }
    }

    /// When something is to be done even if nothing happens.
    fn deadline(&self) -> Option<Instant> {
        if self.relays.iter().any(Relay::is_ready) {
            return Some(self.now);
        }
        let relays = self.relays.iter().map(Relay::deadline);
        relays.chain([self.next_late, self.acceptor.deadline(self.now)]).flatten().min()
    }

    fn take(&mut self, event: &Event) {
        match event.data.u64() {
            COMPLETIONS => self.take_back(),
            relay @ FIRST_RELAY..FIRST_LISTENER => {
                self.relays[usize::from(relay > FIRST_RELAY)].note(event.flags);
            }
            listener @ ..FIRST_CONNECTION => {
                self.acceptor
                    .note(usize::try_from(listener - FIRST_LISTENER).unwrap_or(usize::MAX));
            }
            id => {
                let flags = event.flags;
                self.guarded(id, |this, connection| {
                    connection
                        .note(flags)
                        .then(|| connection.advance(&this.context, &mut this.room, this.now))
                });
            }
        }
    }

    /// Takes the connections that workers gave back, and hears whether to stop.
    fn take_back(&mut self) {
        let (back, stage) = self.context.completions.take();
        if stage > self.stage {
            self.acceptor.close();
        }
        self.stage = stage;
        for (connection, next) in back {
            // What came meanwhile is told when it is watched again.
            let id = self.insert(connection);
            self.guarded(id, |this, connection| {
                Some(match next {
                    Next::Relay(request) => connection.relay(request),
                    Next::Answered { keep_alive } => {
                        connection.finish(keep_alive, &this.context, &mut this.room, this.now)
                    }
                })
            });
        }
    }

    fn accept(&mut self) {
        let mut seated = Vec::new();
        self.acceptor.accept(self.now, &mut seated);
        for (permit, peer) in seated {
            let id = self.insert(Connection::new(permit, peer, &self.context.limits, self.now));
            // Often the request has come with the connection.
            self.guarded(id, |this, connection| {
                Some(connection.advance(&this.context, &mut this.room, this.now))
            });
        }
    }

    /// Sends the requests of this round, and passes on the answers that have come.
    fn exchange(&mut self, at: usize) {
        self.relays[at].send(&self.poll);
        let inbox = self.relays[at].receive();
        let mut used = 0;
        while let Some(arrived) = self.relays[at].next_answer(&inbox[used..]) {
            let body = &inbox[used + arrived.head.received..used + arrived.whole];
            used += arrived.whole;
            self.answer(arrived.id, arrived.head, body);
        }
        self.relays[at].give_back(inbox, used);
        for (id, refusal) in self.relays[at].take_lost() {
            self.guarded(id, |_, connection| Some(connection.refuse(refusal)));
        }
    }

    fn answer(&mut self, id: u64, head: AnswerHead, body: &[u8]) {
        self.guarded(id, |this, connection| {
            Some(match connection.answer(head, body) {
                Ok(keep_alive) => {
                    connection.finish(keep_alive, &this.context, &mut this.room, this.now)
                }
                Err(step) => step,
            })
        });
    }

    /// Ends what is late. Most connections are busy until their time has passed, so
    /// the next look is due when the first of those that were there could be late.
    fn expire(&mut self) {
        self.relays.iter_mut().for_each(|relay| relay.expire(self.now));
        if self.next_late.is_none_or(|late| late > self.now) {
            return;
        }
        self.next_late = self.connections.values().filter_map(Connection::deadline).min();
        if self.next_late.is_none_or(|late| late > self.now) {
            return;
        }
        let ids: Vec<u64> = self.connections.keys().copied().collect();
        for id in ids {
            self.guarded(id, |this, connection| connection.expire(this.now));
        }
        self.next_late = self.connections.values().filter_map(Connection::deadline).min();
    }

    fn insert(&mut self, connection: Connection) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        self.connections.insert(id, connection);
        id
    }

    /// Does something with a connection, and what follows from it. A panic is a bug; it
    /// ends this connection and no other.
    fn guarded(&mut self, id: u64, work: impl FnOnce(&mut Self, &mut Connection) -> Option<Step>) {
        // Events of the past may name a connection that has gone.
        let Some(mut connection) = self.connections.remove(&id) else { return };
        let step = catch_unwind(AssertUnwindSafe(|| work(self, &mut connection)));
        match step {
            Ok(None) => self.keep(id, connection),
            Ok(Some(Step::Wait)) => {
                if !connection.watched {
                    if self.poll.watch(connection.permit.stream(), id).is_err() {
                        return;
                    }
                    connection.watched = true;
                }
                let late = self.next_late.map_or(connection.until, |l| l.min(connection.until));
                self.next_late = Some(late);
                self.keep(id, connection);
            }
            Ok(Some(Step::Relay(request))) => {
                let relay = &mut self.relays[usize::from(connection.changes)];
                relay.push(id, request, connection.to_head, self.now);
                self.keep(id, connection);
            }
            Ok(Some(Step::Work(job))) => self.hand_over(connection, job),
            Ok(Some(Step::Over)) => {}
            Err(_) => log::error!("a connection ended by a panic"),
        }
    }

    fn keep(&mut self, id: u64, connection: Connection) {
        self.connections.insert(id, connection);
    }

    fn hand_over(&mut self, mut connection: Connection, job: Job) {
        if std::mem::take(&mut connection.watched) {
            self.poll.forget(connection.permit.stream());
        }
        if let Err(task) = self.workers.start(Task { connection, job }) {
            turn_away(task.connection.permit.stream());
            self.acceptor.make_room();
        }
    }
}
