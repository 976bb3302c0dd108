//! Between `tiny_http` and the API: the one thread that handles requests.
//!
//! The gate sends only whole, small requests over the socket and reads whole
//! answers, so nothing here waits for anybody's network.

use crate::api::{Answer, Api, ApiError, Body, Peer, Request};
use crate::model::Client;
use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use tiny_http::{Header, Response, Server, StatusCode};

/// Header names between gate and handler; clients cannot send them.
const CLIENT: &str = "X-Gate-Client";
const SECURE: &str = "X-Gate-Secure";
const PROVED: &str = "X-Gate-Proved";
const FILE: &str = "X-Gate-File";

/// Answers requests until [`Server::unblock`].
pub(super) fn handle(server: &Server, api: &Api) {
    while let Ok(mut request) = server.recv() {
        // A panic is a bug here; it ends this request and no other.
        let answer = catch_unwind(AssertUnwindSafe(|| answer(api, &mut request)))
            .unwrap_or_else(|_| ApiError::internal().into());
        if let Err(error) = request.respond(response(answer)) {
            log::warn!("an answer did not reach the gate: {error}");
        }
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
    api.answer(&Request {
        method: request.method().as_str(),
        path,
        query,
        authorization: header(request, "Authorization").map(|h| h.value.as_bytes()),
        peer,
        secure: header(request, SECURE).is_some(),
        body: &body,
    })
}

fn header<'a>(request: &'a tiny_http::Request, name: &'static str) -> Option<&'a Header> {
    request.headers().iter().find(|h| h.field.equiv(name))
}

fn response(answer: Answer) -> Response<Cursor<std::borrow::Cow<'static, [u8]>>> {
    let mut headers: Vec<Header> = Vec::with_capacity(answer.headers.len() + 2);
    let mut add = |name: &str, value: &[u8]| {
        if let Ok(header) = Header::from_bytes(name, value) {
            headers.push(header);
        }
    };
    for (name, value) in &answer.headers {
        add(name, value.as_bytes());
    }
    if answer.proved {
        add(PROVED, b"1");
    }
    let body = match answer.body {
        Body::Bytes(bytes) => std::borrow::Cow::Owned(bytes),
        Body::Static(bytes) => std::borrow::Cow::Borrowed(bytes),
        Body::File(path) => {
            add(FILE, std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str()));
            std::borrow::Cow::Borrowed(&b""[..])
        }
    };
    let length = body.len();
    let status = StatusCode(answer.status);
    // The gate wants a length, never chunks.
    Response::new(status, headers, Cursor::new(body), Some(length), None)
        .with_chunked_threshold(usize::MAX)
}
