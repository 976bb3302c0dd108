//! The gate: the front door that owns the public port.
//!
//! It admits connections, reads each request whole, judges it, and relays it over
//! a Unix socket to tiny_http, which therefore sees only small, well-formed
//! requests and a peer that never stalls. So the threads that handle requests never
//! wait for anybody's network: one for those that read is enough, and one for those
//! that change something, which take a line of their own.
//!
//! The `event_loop` has a connection while only its next event is awaited: `accept`
//! seats it by `admission`, `connection` reads a [`head`] and a body, and sends a small [`answer`], and
//! [`rewrite`] and `relay` pass on what goes in, from the [`client`] that is found. What takes
//! longer, or may, is `blocking_io`: a worker sends a large answer over the `wire` or serves a
//! WebSocket. It gives the connection back by `completions`, as the handler gives its answer.
//! What is not let in gets a [`refusal`]. P22.

mod accept;
mod admission;
pub mod answer;
mod blocking_io;
pub mod client;
mod completions;
mod connection;
mod event_loop;
pub mod head;
mod poll;
pub mod refusal;
mod relay;
pub mod rewrite;
pub mod upgrade;
mod wire;

#[cfg(test)]
mod tests;

pub use completions::Completions;

use crate::model::Trust;
use accept::Acceptor;
use admission::{Admission, FRESH};
use completions::Completion;
use event_loop::EventLoop;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use upgrade::Upgrade;

/// Connections that the kernel keeps until they are accepted. The standard library
/// asks for 128; beyond that a newcomer's first packet is lost and it tries again
/// only a second later, so one burst of strangers would delay the owner for longer
/// than the second in which the owner must be answered.
pub const BACKLOG: i32 = 4096;

/// Serves a WebSocket handshake on a thread of its own. When it returns the
/// connection is over.
pub type Upgraded = Box<dyn Fn(Upgrade) + Send + Sync>;

/// What the gate needs to know.
pub struct Settings {
    /// The public listener, already bound.
    pub listener: TcpListener,
    /// A Unix socket, bound, at which a proxy of our own connects.
    pub proxy: UnixListener,
    /// Path of the Unix socket at which tiny_http listens.
    pub relay: PathBuf,
    /// Whose forwarding headers are believed (P11).
    pub trust: Trust,
    /// Serves WebSocket handshakes.
    pub upgrade: Upgraded,
    /// What the handler looks at besides the fields that every request may have.
    pub also: Also,
}

/// Header fields that are passed on to the handler in some requests only.
#[derive(Debug, Clone, Default)]
pub struct Also {
    /// What the targets of those requests begin with.
    pub below: &'static str,
    /// The names, in any case.
    pub fields: Vec<&'static str>,
}

/// The bounds of a gate; tests make them tighter.
#[derive(Debug, Clone)]
pub(crate) struct GateLimits {
    /// Connections at a time.
    pub connections: usize,
    /// Connections of one client at a time; trusted proxies are exempt.
    pub per_client: usize,
    /// Bytes of large buffers that all connections hold together.
    pub held_bytes: usize,
    /// Bytes in a request's body.
    pub body_bytes: usize,
    /// Time for a whole head.
    pub head: Duration,
    /// Time for a whole body.
    pub body: Duration,
    /// Time between an answer and the next request.
    pub idle: Duration,
    /// Time that a write may make no progress.
    pub stall: Duration,
    /// Time for the answer to a relayed request.
    pub answer: Duration,
    /// Time for a client that is still sending to read why it was refused.
    pub linger: Duration,
}

impl GateLimits {
    /// The bounds in force. Those without a comment are what the gate promises (P22).
    pub(crate) const DEFAULT: Self = Self {
        connections: 512,
        per_client: 64,
        // A twelfth of what the whole process may use under attack (P22): what the
        // allocator keeps for itself is several times as much, as buffers grow.
        held_bytes: 4 * 1024 * 1024,
        body_bytes: 1024 * 1024,
        head: Duration::from_secs(10),
        body: Duration::from_secs(30),
        // Longer than the minute after which browsers and proxies look again, so
        // that they close first and never write into a connection that is closing.
        idle: Duration::from_secs(75),
        stall: Duration::from_secs(10),
        // Far beyond any handler; it only keeps a stuck one from taking the gate along.
        answer: Duration::from_secs(60),
        // A client on a slow line has read a refusal by then.
        linger: Duration::from_secs(2),
    };
}

/// Half of the files that this process may open: the other half is for the database,
/// the logs and the programs that are started. A connection takes one file.
fn affordable_connections() -> usize {
    let files = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    files.map_or(usize::MAX, |files| usize::try_from(files / 2).unwrap_or(usize::MAX))
}

/// What the event loop and the workers use.
struct Context {
    limits: GateLimits,
    trust: Trust,
    upgrade: Upgraded,
    also: Also,
    completions: Arc<Completions>,
}

/// A running gate.
pub struct Gate {
    address: SocketAddr,
    seats: Arc<Admission>,
    context: Arc<Context>,
    event_loop: Option<JoinHandle<()>>,
}

impl Gate {
    /// Opens the gate. tiny_http had better listen at the relay path already; until
    /// it does requests get 503.
    ///
    /// # Errors
    /// When a listener cannot be used or the event loop cannot be started.
    pub fn start(settings: Settings) -> io::Result<Self> {
        Self::start_with(settings, GateLimits::DEFAULT)
    }

    pub(crate) fn start_with(settings: Settings, limits: GateLimits) -> io::Result<Self> {
        let Settings { listener, proxy, relay, trust, upgrade, also } = settings;
        wire::prepare(&listener)?;
        let address = listener.local_addr()?;
        for listener in [listener.as_fd(), proxy.as_fd()] {
            rustix::io::ioctl_fionbio(listener, true)?;
            rustix::net::listen(listener, BACKLOG)?;
        }
        let most = limits.connections.min(affordable_connections());
        if most < limits.connections {
            log::warn!(
                "only {most} connections at a time, because this process may open few files; \
                 raise the limit (LimitNOFILE= in systemd, ulimit -n in a shell) to 1024"
            );
        }
        let seats = Admission::new(most, limits.per_client, limits.held_bytes);
        let completions = Arc::new(Completions::new()?);
        let context = Arc::new(Context { limits, trust, upgrade, also, completions });
        let acceptor = Acceptor::new(Arc::clone(&context), Arc::clone(&seats), (listener, proxy));
        let event_loop = EventLoop::new(Arc::clone(&context), acceptor, &relay)?;
        let event_loop =
            thread::Builder::new().name("gate".to_owned()).spawn(move || event_loop.run())?;
        Ok(Self { address, seats, context, event_loop: Some(event_loop) })
    }

    /// Where the handler's answers go.
    #[must_use]
    pub fn completions(&self) -> Arc<Completions> {
        Arc::clone(&self.context.completions)
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops: accepts nobody any more, closes idle connections, lets running
    /// requests and those of connections that were made just now finish and joins all threads, within `drain`. What still runs shortly
    /// before that is cut off.
    pub fn stop(mut self, drain: Duration) {
        self.shut(drain);
    }

    fn shut(&mut self, drain: Duration) {
        let Some(event_loop) = self.event_loop.take() else { return };
        let start = Instant::now();
        self.context.completions.give(Completion::Close);
        self.seats.wait_until_empty(start + FRESH.min(drain / 2));
        self.seats.close(Duration::ZERO);
        // The rest of the time is for those that have to be cut off.
        if self.seats.wait_until_empty(start + drain.mul_f32(0.9)) > 0 {
            self.seats.abort_all();
            let left = self.seats.wait_until_empty(start + drain);
            if left > 0 {
                log::warn!("{left} connections did not end in time");
            }
        }
        self.context.completions.give(Completion::End);
        let _ = event_loop.join();
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.shut(Duration::ZERO);
    }
}
