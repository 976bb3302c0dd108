//! Sessions over real sockets, with a small stand-in for the front door.

mod ending;
mod opening;
mod sending;

use super::*;
use crate::data_dir::DataDir;
use crate::gate::client::Source;
use crate::model::{Client, Secret};
use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use tempfile::TempDir;
use tungstenite::{Message, WebSocket};

/// What the sessions believe about apps and deploys.
#[derive(Default)]
struct FakeFacts {
    /// The deploys that there are, and whether they are final.
    deploys: Mutex<HashMap<DeployId, bool>>,
    apps: Mutex<Vec<AppId>>,
    secret: Mutex<Vec<Secret>>,
    /// The secrets cannot be read.
    is_locked: AtomicBool,
}

/// Boxes one share of the facts; the test keeps the other.
impl Facts for Arc<FakeFacts> {
    fn json(&self, of: &Followed) -> Option<String> {
        let Followed::Ending(LogOf::Deploy(id)) = of else { return None };
        let done = self.ended(of)?;
        Some(format!(r#"{{"id":"{id}","status":"{}"}}"#, if done { "live" } else { "building" }))
    }
    fn ended(&self, of: &Followed) -> Option<bool> {
        match of {
            Followed::App(id) => self.apps.lock().unwrap().contains(id).then_some(true),
            Followed::Ending(LogOf::Deploy(id)) => self.deploys.lock().unwrap().get(id).copied(),
            Followed::Ending(LogOf::Run(_)) => None,
        }
    }
    fn app_redactor(&self, _: &AppId) -> io::Result<Redactor> {
        if self.is_locked.load(Ordering::Relaxed) {
            return Err(io::Error::other("a value does not open"));
        }
        Ok(Redactor::new(self.secret.lock().unwrap().clone()))
    }
    fn app_states(&self) -> String {
        r#"[{"id":"aaaaaaaaaa","status":"running"}]"#.to_owned()
    }
}

struct Server {
    live: Arc<Live>,
    auth: Arc<Auth>,
    journal: Arc<Journal>,
    facts: Arc<FakeFacts>,
    proved: Arc<AtomicUsize>,
    address: SocketAddr,
    door: Option<JoinHandle<()>>,
    _folder: TempDir,
}

/// Nobody waits that long unless something never comes.
const FOREVER: Duration = Duration::from_secs(30);

/// Limits under which a test need not wait, without pings: test clients answer
/// them only while they read.
fn quick() -> LiveLimits {
    LiveLimits {
        ping_every: Duration::from_secs(60),
        stalled_after: Duration::from_millis(400),
        tick: Duration::from_millis(50),
        ..LiveLimits::default()
    }
}

impl Server {
    fn start(limits: LiveLimits) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = DataDir::open(&folder.path().join("data")).unwrap();
        let auth = Arc::new(Auth::start(None, &data).unwrap().0);
        let journal = Arc::new(Journal::open(&data).unwrap());
        let facts = Arc::new(FakeFacts::default());
        let settings = Settings {
            auth: Arc::clone(&auth),
            journal: Arc::clone(&journal),
            facts: Box::new(Arc::clone(&facts)),
            data_dir: data.path().to_owned(),
            dashboard_origin: Some("https://paas.example".to_owned()),
        };
        let live = Arc::new(Live { limits, ..Live::new(settings).unwrap() });
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let proved = Arc::new(AtomicUsize::new(0));
        let (for_door, counter) = (Arc::clone(&live), Arc::clone(&proved));
        let door = std::thread::spawn(move || {
            std::thread::scope(|scope| {
                for stream in listener.incoming() {
                    let (live, counter) = (&for_door, Arc::clone(&counter));
                    let stream = stream.unwrap();
                    let mut after = stream.try_clone().unwrap();
                    let Some(upgrade) = head_of(stream, counter) else { return };
                    scope.spawn(move || {
                        live.serve(upgrade);
                        // So that the last words are read, as the gate does it.
                        after.shutdown(Shutdown::Write).ok();
                        after.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
                        let (start, mut nowhere) = (Instant::now(), [0; 4096]);
                        while start.elapsed() < Duration::from_millis(500)
                            && after.read(&mut nowhere).is_ok_and(|read| read > 0)
                        {
                        }
                    });
                }
            });
        });
        Self { live, auth, journal, facts, proved, address, door: Some(door), _folder: folder }
    }

    fn deploy(&self, seed: u8) -> DeployId {
        let id = DeployId::from_random([seed; 10]);
        self.facts.deploys.lock().unwrap().insert(id.clone(), false);
        id
    }

    fn finish(&self, id: &DeployId) {
        self.facts.deploys.lock().unwrap().insert(id.clone(), true);
    }

    fn app(&self, seed: u8) -> AppId {
        let id = AppId::from_random([seed; 10]);
        self.facts.apps.lock().unwrap().push(id.clone());
        id
    }

    /// The path with the token in force.
    fn with_token(&self, path: &str) -> String {
        let sign = if path.contains('?') { '&' } else { '?' };
        format!("{path}{sign}token={}", self.auth.token().expose())
    }

    fn stream(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(FOREVER)).unwrap();
        stream.set_write_timeout(Some(Duration::from_secs(10))).unwrap();
        stream
    }

    /// Opens a session as the owner.
    fn open(&self, path: &str) -> WebSocket<TcpStream> {
        let url = format!("ws://{}{}", self.address, self.with_token(path));
        tungstenite::client(url, self.stream()).unwrap().0
    }

    /// Sends a request for a WebSocket with header lines of choice, and gives the
    /// stream back with the head of the answer.
    fn request(&self, target: &str, lines: &str) -> (TcpStream, String) {
        let mut stream = self.stream();
        let head = format!("GET {target} HTTP/1.1\r\n{lines}\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        let answer = read_head(&mut stream);
        (stream, answer)
    }

    /// As [`Self::request`] with what every client sends; gives the status and the whole answer.
    fn try_open(&self, target: &str, more: &str) -> (u16, String) {
        let (mut stream, mut answer) = self.request(target, &format!("{}{more}", self.usual()));
        let status = answer[9..12].parse().unwrap();
        if status != 101 {
            stream.read_to_string(&mut answer).unwrap();
        }
        (status, answer)
    }

    fn usual(&self) -> String {
        format!(
            "Host: {}\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
            self.address
        )
    }

    /// Waits until there are that many sessions.
    fn expect_sessions(&self, count: usize) {
        let start = Instant::now();
        while self.live.seats.taken() != count {
            assert!(start.elapsed() < FOREVER, "{}", self.live.seats.taken());
            std::thread::yield_now();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.live.shutdown();
        // A connection without a request ends the stand-in's loop.
        drop(TcpStream::connect(self.address));
        let joined = self.door.take().unwrap().join();
        assert!(joined.is_ok() || std::thread::panicking());
    }
}

fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte).unwrap() == 0 {
            break;
        }
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

/// The stand-in for the front door: `None` when the peer sent nothing.
fn head_of(mut stream: TcpStream, proved: Arc<AtomicUsize>) -> Option<Upgrade> {
    let head = read_head(&mut stream);
    let mut lines = head.split("\r\n");
    let target = lines.next()?.split(' ').nth(1)?.to_owned();
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path.to_owned(), Some(query.to_owned())),
        None => (target, None),
    };
    let headers = lines.filter_map(|line| line.split_once(": "));
    let headers = headers.map(|(n, v)| (n.to_ascii_lowercase(), v.as_bytes().to_vec())).collect();
    // The client says who it is, which spares the tests a network of machines.
    let client = path.split("/as/").nth(1).map_or("192.0.2.1", |c| c).to_owned();
    let path = path.split("/as/").next().unwrap_or_default().to_owned();
    // As much as is there already came with the head.
    stream.set_nonblocking(true).unwrap();
    let mut leftover = vec![0; 4096];
    let length = stream.read(&mut leftover).unwrap_or(0);
    leftover.truncate(length);
    stream.set_nonblocking(false).unwrap();
    stream.set_write_timeout(Some(Duration::from_secs(10))).unwrap();
    let source = Source {
        client: Client::parse(&client).unwrap(),
        trusted_proxy: false,
        https: false,
        plain: false,
        unheeded: false,
    };
    Some(Upgrade {
        stream,
        leftover,
        path,
        query,
        headers,
        source,
        prove: Box::new(move || {
            proved.fetch_add(1, Ordering::Relaxed);
        }),
    })
}

/// The next text, as JSON; pings are answered on the way.
fn next_json(socket: &mut WebSocket<TcpStream>) -> serde_json::Value {
    loop {
        match socket.read() {
            Ok(Message::Text(text)) => return serde_json::from_str(&text).unwrap(),
            Ok(Message::Ping(_) | Message::Pong(_)) => {}
            // Another test's signal, for the whole process.
            Err(tungstenite::Error::Io(e)) if e.kind() == std::io::ErrorKind::Interrupted => {}
            other => panic!("{other:?}"),
        }
    }
}

/// The code and reason with which the server closes; texts before it are passed over.
fn close_of(socket: &mut WebSocket<TcpStream>) -> (u16, String) {
    loop {
        if let Message::Close(frame) = socket.read().unwrap() {
            let frame = frame.unwrap();
            while socket.read().is_ok() {}
            return (frame.code.into(), frame.reason.to_string());
        }
    }
}

/// Reads texts until one holds `until`, and gives all lines of them.
fn lines_until(socket: &mut WebSocket<TcpStream>, until: &str) -> Vec<String> {
    let mut all = Vec::new();
    loop {
        let message = next_json(socket);
        let lines = message["lines"].as_array().unwrap_or_else(|| panic!("{message}"));
        all.extend(lines.iter().map(|l| l.as_str().unwrap().to_owned()));
        if all.last().is_some_and(|l| l.contains(until)) {
            return all;
        }
    }
}
