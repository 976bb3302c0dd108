//! A real gate in front of a real tiny_http, with raw sockets against it.

mod answers;
mod attacks;
mod life;
mod requests;

use super::answer::{self, Body};
use super::*;
use crate::model::Cidr;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};
use tempfile::TempDir;

/// What the handler in these tests takes for the token.
const TOKEN: &str = "bpaas_this_is_the_token_of_the_tests";

/// Longer than anything here takes: a test that waits so long has failed.
const FOREVER: Duration = Duration::from_secs(20);

/// A gate, what is behind it, and where it listens.
struct House {
    gate: Option<Gate>,
    server: Arc<tiny_http::Server>,
    handler: Option<JoinHandle<()>>,
    address: SocketAddr,
    dir: TempDir,
    /// Lets one `/wait` request go on.
    go: Sender<()>,
    /// Lets one `/made` request go on.
    make: Sender<()>,
    /// Told when a `/wait` or `/made` request or a handshake has reached the inside.
    arrived: Arc<Mutex<Receiver<String>>>,
}

impl House {
    fn new() -> Self {
        Self::with(GateLimits::DEFAULT)
    }

    fn with(limits: GateLimits) -> Self {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("gate.sock");
        let server = Arc::new(tiny_http::Server::http_unix(&path).unwrap());
        let (go, gone) = channel();
        let (make, makes) = channel();
        let (tell, arrived) = channel();
        let (makes, dir_path) = (Arc::new(Mutex::new(makes)), dir.path().to_owned());
        let behind = Behind { gone, makes, tell: tell.clone(), dir: dir_path };
        let tell = Mutex::new(tell);
        let upgrade: Upgraded = Box::new(move |upgrade| {
            let tell = tell.lock().unwrap().clone();
            echo_upgraded(upgrade, &tell);
        });
        let settings = Settings {
            listener: TcpListener::bind("127.0.0.1:0").unwrap(),
            proxy: UnixListener::bind(dir.path().join("proxy.sock")).unwrap(),
            relay: path,
            // Besides every client that comes over the Unix socket.
            trust: Trust(vec![Cidr::parse("127.1.9.9").unwrap()]),
            upgrade,
            also: Also::default(),
        };
        let gate = Gate::start_with(settings, limits).unwrap();
        let address = gate.address();
        let (incoming, completions) = (Arc::clone(&server), gate.completions());
        let handler = thread::spawn(move || {
            while let Ok(request) = incoming.recv() {
                behind.handle(request, &completions);
            }
        });
        let arrived = Arc::new(Mutex::new(arrived));
        Self { gate: Some(gate), server, handler: Some(handler), address, dir, go, make, arrived }
    }

    fn gate(&self) -> &Gate {
        self.gate.as_ref().unwrap()
    }

    fn connect(&self) -> Caller {
        Caller::over(TcpStream::connect(self.address).unwrap())
    }

    /// Connects from 127.0.`n`, which the gate takes for another client.
    fn connect_from(&self, n: u16) -> Caller {
        use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with};
        let [high, low] = n.to_be_bytes();
        let from = SocketAddr::from(([127, 1, high, low], 0));
        let (family, flags) = (AddressFamily::INET, SocketFlags::CLOEXEC);
        let socket = socket_with(family, SocketType::STREAM, flags, None).unwrap();
        bind(&socket, &from).unwrap();
        connect(&socket, &self.address).unwrap();
        Caller::over(TcpStream::from(socket))
    }

    /// What the owner sees: a new connection, a request with the token, an answer.
    fn owner_is_served(&self) {
        let start = Instant::now();
        let mut owner = self.connect_from(60_000);
        let answer = owner.ask(&format!("GET /hello HTTP/1.1\r\nHost: a\r\n{}\r\n", bearer()));
        assert_eq!((answer.status, answer.text()), (200, "hello"));
        // Not after some stranger's deadline. Of a second speaks the siege, through the binary.
        assert!(start.elapsed() < FOREVER / 4, "{:?}", start.elapsed());
    }

    /// Waits until the inside reports something.
    fn arrival(&self) -> String {
        self.arrived.lock().unwrap().recv_timeout(FOREVER).unwrap()
    }
}

impl Drop for House {
    fn drop(&mut self) {
        if let Some(gate) = self.gate.take() {
            gate.stop(FOREVER);
        }
        self.server.unblock();
        let panicked = self.handler.take().unwrap().join().is_err();
        assert!(!panicked || thread::panicking());
    }
}

fn bearer() -> String {
    format!("Authorization: Bearer {TOKEN}\r\n")
}

/// Everything behind the gate: one thread for all requests.
struct Behind {
    gone: Receiver<()>,
    makes: Arc<Mutex<Receiver<()>>>,
    tell: Sender<String>,
    dir: PathBuf,
}

impl Behind {
    fn handle(&self, mut request: tiny_http::Request, completions: &Completions) {
        let path = request.url().split('?').next().unwrap().to_owned();
        let proved = request
            .headers()
            .iter()
            .any(|h| h.field.equiv("Authorization") && h.value.as_str().ends_with(TOKEN));
        let mut status = 200;
        let body: Body = match path.as_str() {
            "/hello" => b"hello"[..].into(),
            "/echo" => {
                let mut body = format!("{} {}\n", request.method(), request.url()).into_bytes();
                for header in request.headers() {
                    body.extend_from_slice(format!("{header}\n").as_bytes());
                }
                body.push(b'\n');
                request.as_reader().read_to_end(&mut body).unwrap();
                body.into()
            }
            "/big" => vec![b'x'; request.url()[5..].parse().unwrap()].into(),
            "/file" => Body::File(self.dir.join("answer")),
            "/made" => {
                let (tell, makes) = (self.tell.clone(), Arc::clone(&self.makes));
                Body::Made(Box::new(move || {
                    tell.send("made".to_owned()).map_err(io::Error::other)?;
                    let go_on = makes.lock().unwrap().recv_timeout(FOREVER);
                    go_on.map(|()| b"to measure".to_vec()).map_err(io::Error::other)
                }))
            }
            "/wait" => {
                self.tell.send(path).unwrap();
                let _ = self.gone.recv_timeout(FOREVER);
                b"waited"[..].into()
            }
            "/empty" => {
                status = 204;
                Vec::new().into()
            }
            // A handler that died: tiny_http answers 500 by itself.
            "/dropped" => return,
            _ => {
                status = 404;
                Vec::new().into()
            }
        };
        let number = request.headers().iter().find(|h| h.field.equiv("X-Gate-Number")).unwrap();
        let number = number.value.as_str().parse().unwrap();
        drop(request.into_writer());
        let answer = answer::Answer { status, proved, ..answer::Answer::text(body) };
        completions.answer(number, answer);
    }
}

/// Sends back what comes, after a line that names the request; `?prove` proves.
fn echo_upgraded(mut upgrade: Upgrade, tell: &Sender<String>) {
    if upgrade.query.as_deref() == Some("prove") {
        (upgrade.prove)();
    }
    let _ = tell.send(format!("{} {:?}", upgrade.path, upgrade.query));
    let line = format!("upgraded {} {:?}\n", upgrade.source.client, upgrade.headers);
    let _ = upgrade.stream.write_all(line.as_bytes());
    let _ = upgrade.stream.write_all(&upgrade.leftover);
    let mut buffer = [0; 1024];
    while let Ok(n @ 1..) = upgrade.stream.read(&mut buffer) {
        let _ = upgrade.stream.write_all(&buffer[..n]);
    }
}

/// The client's end of a connection.
struct Caller {
    stream: TcpStream,
    read: Vec<u8>,
}

/// An answer as it came.
struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Answer {
    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    fn has(&self, line: &str) -> bool {
        self.head.lines().any(|l| l.eq_ignore_ascii_case(line))
    }
}

impl Caller {
    fn over(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(FOREVER)).unwrap();
        stream.set_write_timeout(Some(FOREVER)).unwrap();
        Self { stream, read: Vec::new() }
    }

    fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).unwrap();
    }

    fn ask(&mut self, request: &str) -> Answer {
        self.send(request);
        self.answer()
    }

    fn answer(&mut self) -> Answer {
        self.answer_to(false).expect("an answer")
    }

    /// Reads more; false at the end. A reset is an end, too.
    fn more(&mut self) -> bool {
        let mut buffer = [0; 64 * 1024];
        match self.stream.read(&mut buffer) {
            Ok(n) => {
                self.read.extend_from_slice(&buffer[..n]);
                n > 0
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => panic!("nothing came"),
            Err(_) => false,
        }
    }

    /// Reads one answer; `None` when the connection ends instead.
    fn answer_to(&mut self, to_head: bool) -> Option<Answer> {
        let end = loop {
            match self.read.windows(4).position(|w| w == b"\r\n\r\n") {
                Some(at) => break at + 4,
                None if self.more() => {}
                None => return None,
            }
        };
        let head = String::from_utf8(self.read.drain(..end).collect()).unwrap();
        let status = head[9..12].parse().unwrap();
        let length = head.lines().find_map(|l| l.strip_prefix("Content-Length: "));
        let length = if to_head { 0 } else { length.map_or(0, |l| l.parse().unwrap()) };
        while self.read.len() < length {
            assert!(self.more(), "the answer ended early");
        }
        Some(Answer { status, head, body: self.read.drain(..length).collect() })
    }

    /// Whether the other side closed without another byte.
    fn is_over(&mut self) -> bool {
        let over = !self.more() && self.read.is_empty();
        assert!(over || !self.read.is_empty());
        over
    }

    fn hello(&mut self) {
        let answer = self.ask("GET /hello HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!((answer.status, answer.text()), (200, "hello"));
    }
}

/// Waits until something is so; panics when it never is.
fn until(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < FOREVER, "{what}");
        thread::yield_now();
    }
}
