//! What the tests of the front door share: crowds of clients, and the promises that hold beside them.

use super::http::Answer;
use super::process;
use super::raw::RawConn;
use super::server::Server;
use super::wait::until;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// What the server may use under attack.
const MEMORY_LIMIT_KIB: u64 = 48 * 1024;
/// How long the owner waits at most.
const OWNER_LIMIT: Duration = Duration::from_secs(1);
/// The same for a connection that is new: the kernel repeats a lost packet of its handshake after 1 s at the earliest
/// (RFC 6298), and on a machine whose every core is busy one may be lost. A signed-in owner has a connection already.
const NEWCOMER_LIMIT: Duration = Duration::from_secs(4);
/// After this long nothing of an attack is left.
const AFTERMATH: Duration = Duration::from_secs(60);

/// The relay keeps up to 4 connections to `tiny_http` once they were needed: a thread each, two ends each in the same
/// process. One more of the owner's own may be on its way.
const POOL_THREADS: usize = 4 + 1;
const POOL_FILES: usize = 2 * 4 + 1;

/// Watches a server under attack, with the eyes of its owner.
pub struct Watch {
    pid: u32,
    address: SocketAddr,
    token: String,
    threads: usize,
    files: usize,
}

impl Watch {
    /// Notes how the server is at rest.
    pub fn over(server: &Server) -> Self {
        let pid = server.pid();
        let mut watch =
            Self { pid, address: server.address(), token: server.token(), threads: 0, files: 0 };
        watch.owner_is_answered();
        // That request's connection is gone when the numbers stand still.
        let mut last = (0, 0);
        until("the server is at rest", Duration::from_secs(60), || {
            let before =
                std::mem::replace(&mut last, (process::threads(pid), process::open_files(pid)));
            before == last
        });
        (watch.threads, watch.files) = last;
        watch
    }

    /// The promises that hold under any attack.
    #[track_caller]
    pub fn holds(&self) {
        self.owner_is_answered();
        self.memory_holds();
    }

    /// A signed-in owner gets the list of apps within a second; how long it took.
    #[track_caller]
    pub fn owner_is_answered(&self) -> Duration {
        let begin = Instant::now();
        self.new_owner().get("/api/apps").expect(200);
        let took = begin.elapsed();
        assert!(took < OWNER_LIMIT, "the owner waited {took:?}");
        took
    }

    /// The same on a machine whose every seat is fought for: an owner who is turned away tries again at once, as
    /// browsers do, and is in soon. How often it was turned away.
    #[track_caller]
    pub fn owner_gets_in(&self) -> usize {
        let begin = Instant::now();
        let mut refusals = 0;
        while !self.new_owner().try_request("GET", "/api/apps", None).is_ok_and(|a| a.status == 200)
        {
            refusals += 1;
            assert!(begin.elapsed() < NEWCOMER_LIMIT, "turned away {refusals} times");
        }
        assert!(begin.elapsed() < NEWCOMER_LIMIT, "the owner waited {:?}", begin.elapsed());
        refusals
    }

    fn new_owner(&self) -> super::Http {
        let owner = super::Http::new(self.address).bearer(&self.token);
        owner.coming_from([127, 0, 0, 250]).with("Connection", "close")
    }

    /// How much memory the server uses.
    #[track_caller]
    pub fn memory_holds(&self) {
        let memory = process::resident_kib(self.pid).expect("the same process");
        assert!(memory < MEMORY_LIMIT_KIB, "{memory} KiB");
    }

    pub fn threads(&self) -> usize {
        process::threads(self.pid)
    }

    /// A minute after an attack no thread and no file is left of it.
    #[track_caller]
    pub fn goes_back(&self) {
        let deadline = Instant::now() + AFTERMATH;
        loop {
            let (threads, files) = (process::threads(self.pid), process::open_files(self.pid));
            if threads <= self.threads + POOL_THREADS && files <= self.files + POOL_FILES {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "left behind: {threads} threads and {files} files, before {} and {}",
                self.threads,
                self.files
            );
            super::wait::let_pass(Duration::from_millis(50));
        }
    }
}

/// The owner's question.
pub fn request(token: &str) -> String {
    format!("GET /api/apps HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n")
}

/// Opens connections from many addresses of this machine, 50 from each, and sends some bytes on each.
pub fn many_clients(server: &Server, count: usize, bytes: &[u8]) -> Vec<RawConn> {
    allow_many_files();
    let mut all = Vec::with_capacity(count);
    for number in 0..count {
        let from = IpAddr::from([127, 0, 1, u8::try_from(1 + number / 50).expect("few clients")]);
        // The server may turn some away at once; that is its right.
        if let Ok(mut connection) =
            RawConn::open(server.address(), Some(from), Duration::from_secs(10))
        {
            let _sent = connection.try_send(bytes);
            all.push(connection);
        }
    }
    all
}

/// Raises this process's own limit of open files as far as it may.
pub fn allow_many_files() {
    let hard = getrlimit(Resource::Nofile).maximum;
    let wanted = Some(hard.unwrap_or(65_536).min(65_536));
    let _refused = setrlimit(Resource::Nofile, Rlimit { current: wanted, maximum: hard });
}

/// A request that must get one answer with this status, after which the connection closes.
#[track_caller]
pub fn refused(server: &Server, bytes: impl AsRef<[u8]>, statuses: &[u16]) -> Answer {
    let mut connection = RawConn::to(server.address());
    // The server may close before it has taken everything.
    let _sent = connection.try_send(bytes.as_ref());
    let answers = connection.answers();
    let shown =
        String::from_utf8_lossy(&bytes.as_ref()[..bytes.as_ref().len().min(200)]).into_owned();
    assert_eq!(answers.len(), 1, "{shown:?} got {answers:?}");
    let answer = answers.into_iter().next().unwrap();
    assert!(statuses.contains(&answer.status), "{shown:?} got {answer:?} {}", answer.text());
    assert!(answer.closes(), "{shown:?} got {answer:?}");
    assert!(!answer.message().is_empty());
    assert_eq!(answer.header("X-Content-Type-Options"), Some("nosniff"));
    answer
}

/// A request with these header lines.
pub fn with(lines: &str) -> String {
    format!("GET /healthz HTTP/1.1\r\nHost: x\r\n{lines}\r\n")
}
