//! Between `tiny_http` and the API: the one thread that handles requests.
//!
//! The gate sends only whole, small requests over the socket and reads whole
//! answers, so nothing here waits for anybody's network.

use crate::api::{Answer, Api, ApiError, Body, Peer, Request};
use crate::model::Client;
use data_encoding::HEXLOWER;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use tiny_http::{Header, Method, Server, StatusCode};

/// Bytes that the buffer for answers keeps: most answers fit.
const USUAL_ANSWER: usize = 32 * 1024;

/// Where webhooks arrive: only they are judged by further fields.
const HOOKS: &str = "/api/hooks/";

/// Header names between gate and handler; clients cannot send them.
const CLIENT: &str = "X-Gate-Client";
const SECURE: &str = "X-Gate-Secure";
const PROVED: &str = "X-Gate-Proved";
const FILE: &str = "X-Gate-File";

/// Answers requests until [`Server::unblock`].
pub(super) fn handle(server: &Server, api: &Api) {
    let mut out = Vec::with_capacity(USUAL_ANSWER);
    let mut date = Date::default();
    while let Ok(mut request) = server.recv() {
        // A panic is a bug here; it ends this request and no other.
        let answer = catch_unwind(AssertUnwindSafe(|| answer(api, &mut request)))
            .unwrap_or_else(|_| ApiError::internal().into());
        out.clear();
        write(&mut out, &answer, date.now(), request.method() == &Method::Head);
        // One write for head and body: tiny_http's own way of answering makes
        // three of it, and each wakes the gate.
        let mut writer = request.into_writer();
        if let Err(error) = writer.write_all(&out).and_then(|()| writer.flush()) {
            log::warn!("an answer did not reach the gate: {error}");
        }
        out.shrink_to(USUAL_ANSWER);
    }
}

/// Wakes [`handle`] up for good.
pub(super) fn stop(server: &Arc<Server>) {
    server.unblock();
}

fn answer(api: &Api, request: &mut tiny_http::Request) -> Answer {
    let mut body = Vec::with_capacity(request.body_length().unwrap_or(0));
    if request.as_reader().read_to_end(&mut body).is_err() {
        return ApiError::internal().into();
    }
    let peer = match header(request, CLIENT).map(|h| Client::parse(h.value.as_str())) {
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
    let hook: Vec<(&str, &[u8])> = if path.starts_with(HOOKS) {
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
        secure: header(request, SECURE).is_some(),
        hook: &hook,
        body: &body,
    })
}

fn header<'a>(request: &'a tiny_http::Request, name: &'static str) -> Option<&'a Header> {
    request.headers().iter().find(|h| h.field.equiv(name))
}

/// Writes an answer as the gate wants it: HTTP/1.1 with a length, never chunks.
fn write(out: &mut Vec<u8>, answer: &Answer, date: &str, to_head: bool) {
    let file;
    let (body, file): (&[u8], _) = match &answer.body {
        Body::Bytes(bytes) => (bytes, None),
        Body::Static(bytes) => (bytes, None),
        Body::File(path) => {
            file = HEXLOWER.encode(path.as_os_str().as_bytes());
            (b"", Some(&file))
        }
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
        field(PROVED, "1");
    }
    if let Some(file) = file {
        field(FILE, file);
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
