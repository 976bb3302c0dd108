//! Between `tiny_http` and the API: one thread that handles requests that read, and one for
//! those that change something.
//!
//! The gate sends only whole, small requests over the socket and reads whole answers, so
//! nothing here waits for anybody's network. The first waits for nothing at all; the second
//! for the disk, for programs that it starts, and for the router.

use super::signals;
use crate::api::{self, Answer, Api, ApiError, Body, Peer, Request};
use crate::gate::internal_headers;
use crate::model::Client;
use crate::sync::lock;
use data_encoding::HEXLOWER;
use std::error::Error;
use std::io::{ErrorKind, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::UnixStream;
use std::panic::{self, AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tiny_http::{Header, Method, Server, StatusCode};

/// Bytes that the buffer for answers keeps: most answers fit.
const USUAL_ANSWER: usize = 32 * 1024;

/// How often the request thread looks whether it is still heard when nobody asks.
const LOOK: Duration = Duration::from_secs(1);

/// When a thread that is none of ours has ended with a panic: ours have names.
static FOREIGN_PANIC: Mutex<Option<Instant>> = Mutex::new(None);

/// Notes panics of `tiny_http`'s threads, beside the usual message.
pub(super) fn watch_panics() {
    let usual = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        usual(info);
        if std::thread::current().name().is_none() {
            *lock(&FOREIGN_PANIC) = Some(Instant::now());
        }
    }));
}

/// What handles requests.
pub(super) struct Handler {
    server: Server,
    socket: PathBuf,
    stopping: AtomicBool,
}

impl Handler {
    /// Opens the socket between gate and handler.
    pub(super) fn open(socket: PathBuf) -> Result<Self, Box<dyn Error + Send + Sync>> {
        let server = Server::http_unix(&socket)?;
        Ok(Self { server, socket, stopping: AtomicBool::new(false) })
    }

    /// Answers the requests that read until [`Handler::stop`], and passes the others on.
    ///
    /// `tiny_http` takes no more connections after the first that fails, and connections fail
    /// when files run out: then it asks the main thread for a new start, once.
    pub(super) fn run(&self, api: &Api, changes: &Changes) {
        let mut out = Vec::with_capacity(USUAL_ANSWER);
        let mut date = Date::default();
        let mut asked = false;
        while !self.stopping.load(Relaxed) {
            let broken = match self.server.recv_timeout(LOOK) {
                Ok(Some(request)) => {
                    match request.method() {
                        Method::Get | Method::Head => respond(api, request, &mut out, &mut date),
                        // Its thread is there as long as this one.
                        _ => drop(changes.send(request)),
                    }
                    false
                }
                Ok(None) => false,
                Err(_) => true,
            };
            if !asked && (broken || self.is_deaf()) {
                log::error!("no more connections between gate and handler; starting anew");
                asked = true;
                if let Err(error) = signals::ask_to_begin_anew() {
                    log::error!("the server could not start itself anew: {error}");
                }
            }
        }
    }

    /// Whether a panic has ended the thread that takes connections.
    fn is_deaf(&self) -> bool {
        let Some(at) = *lock(&FOREIGN_PANIC) else { return false };
        let Err(error) = UnixStream::connect(&self.socket) else {
            // We hear of a panic before its thread lets go of the socket.
            lock(&FOREIGN_PANIC).take_if(|last| *last == at && at.elapsed() > LOOK);
            return false;
        };
        error.kind() == ErrorKind::ConnectionRefused
    }

    /// Ends [`Handler::run`].
    pub(super) fn stop(&self) {
        self.stopping.store(true, Relaxed);
        self.server.unblock();
    }
}

/// The way to [`change`].
pub(super) type Changes = Sender<tiny_http::Request>;

/// The requests that change something, of which there are as many as the gate has connections.
pub(super) fn changes() -> (Changes, Receiver<tiny_http::Request>) {
    channel()
}

/// Answers the requests that change something until no more can come.
pub(super) fn change(api: &Api, requests: &Receiver<tiny_http::Request>) {
    let (mut out, mut date) = (Vec::new(), Date::default());
    for request in requests {
        respond(api, request, &mut out, &mut date);
    }
}

fn respond(api: &Api, mut request: tiny_http::Request, out: &mut Vec<u8>, date: &mut Date) {
    // A panic is a bug here; it ends this request and no other.
    let answer = catch_unwind(AssertUnwindSafe(|| answer(api, &mut request)))
        .unwrap_or_else(|_| ApiError::internal().into());
    out.clear();
    write(out, &answer, date.now(), request.method() == &Method::Head);
    // One write for head and body: tiny_http's own way of answering makes
    // three of it, and each wakes the gate.
    let mut writer = request.into_writer();
    if let Err(error) = writer.write_all(out).and_then(|()| writer.flush()) {
        log::warn!("an answer did not reach the gate: {error}");
    }
    out.shrink_to(USUAL_ANSWER);
}

fn answer(api: &Api, request: &mut tiny_http::Request) -> Answer {
    let mut body = Vec::with_capacity(request.body_length().unwrap_or(0));
    if request.as_reader().read_to_end(&mut body).is_err() {
        return ApiError::internal().into();
    }
    let peer =
        match header(request, internal_headers::CLIENT).map(|h| Client::parse(h.value.as_str())) {
            // Only the gate and the operator's commands can open the socket, and
            // the gate always names the client.
            None => Peer::Local,
            Some(Ok(client)) => Peer::Remote(client),
            Some(Err(_)) => return ApiError::internal().into(),
        };
    let (path, query) = match request.url().split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (request.url(), None),
    };
    let hook: Vec<(&str, &[u8])> = if path.starts_with(api::HOOKS) {
        request.headers().iter().map(|h| (h.field.as_str().as_str(), h.value.as_bytes())).collect()
    } else {
        Vec::new()
    };
    api.answer(&Request {
        method: request.method().as_str(),
        path,
        query,
        authorization: header(request, "Authorization").map(|h| h.value.as_bytes()),
        peer,
        secure: header(request, internal_headers::SECURE).is_some(),
        hook: &hook,
        body: &body,
    })
}

fn header<'a>(request: &'a tiny_http::Request, name: &'static str) -> Option<&'a Header> {
    request.headers().iter().find(|h| h.field.equiv(name))
}

/// Writes an answer as the gate wants it: HTTP/1.1 with a length, never chunks.
fn write(out: &mut Vec<u8>, answer: &Answer, date: &str, to_head: bool) {
    let (body, elsewhere): (&[u8], _) = match &answer.body {
        Body::Bytes(bytes) => (bytes, None),
        Body::Static(bytes) => (bytes, None),
        Body::File(path) => {
            let path = HEXLOWER.encode(path.as_os_str().as_bytes());
            (b"", Some((internal_headers::FILE, path)))
        }
        Body::Generated(name) => (b"", Some((internal_headers::GENERATED, name.clone()))),
    };
    let status = StatusCode(answer.status);
    // Writing to a Vec cannot fail.
    let _ = write!(out, "HTTP/1.1 {} {}\r\n", answer.status, status.default_reason_phrase());
    let mut field = |name: &str, value: &str| {
        // Values come from this program alone; a line end in one would be a bug
        // here, and must not become a header of its own.
        if !value.contains(['\r', '\n']) {
            for part in [name, ": ", value, "\r\n"] {
                out.extend_from_slice(part.as_bytes());
            }
        }
    };
    field("Date", date);
    for (name, value) in &answer.headers {
        field(name, value);
    }
    if answer.proved {
        field(internal_headers::PROVED, "1");
    }
    if let Some((mark, what)) = elsewhere {
        field(mark, &what);
    }
    let _ = write!(out, "Content-Length: {}\r\n\r\n", body.len());
    if !to_head {
        out.extend_from_slice(body);
    }
}

/// The time in the form of RFC 9110, 5.6.7, written anew once a second.
#[derive(Default)]
struct Date {
    second: u64,
    text: String,
}

impl Date {
    fn now(&mut self) -> &str {
        let now = SystemTime::now();
        let second = now.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
        if second != self.second || self.text.is_empty() {
            self.second = second;
            self.text = httpdate::fmt_http_date(now);
        }
        &self.text
    }
}
