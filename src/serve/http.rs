//! Between `tiny_http` and the API: one thread that handles requests that read, and one for
//! those that change something.
//!
//! The gate sends only whole, small requests over the socket and takes each answer as it is,
//! so nothing here waits for anybody's network. The first waits for nothing at all; the second
//! for the disk, for programs that it starts, and for the router.

use crate::api::{Api, ApiError, Peer, Request};
use crate::gate::{Completions, answer::Answer, rewrite};
use crate::model::Client;
use crate::store::Act;
use std::io::Write as _;
use std::panic::{self, AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender};
use tiny_http::{Header, Method, Server};

/// Ends the server when a thread of `tiny_http` panics: then it takes no more connections.
/// Ours have names.
pub(super) fn watch_panics() {
    let usual = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        usual(info);
        if std::thread::current().name().is_none() {
            give_up();
        }
    }));
}

/// Ends the server, which cannot go on; apps do. Its service manager starts it again.
fn give_up() -> ! {
    log::error!(
        "no more connections between gate and handler; the server ends, for its service manager \
         to start it again"
    );
    std::process::exit(1)
}

/// What the second thread does.
pub(super) enum Change {
    /// Answer a request.
    Request(tiny_http::Request),
    /// Write a row of the audit log for the first thread, or one that is not to wait either.
    Note(Act),
    /// No more.
    End,
}

/// Answers the requests that read until the server is unblocked, and passes the others on.
///
/// `tiny_http` takes no more connections after the first that fails, and connections fail
/// when files run out.
pub(super) fn read(
    server: &Server,
    api: &Api,
    completions: &Completions,
    changes: &Sender<Change>,
) {
    loop {
        match server.recv() {
            Ok(request) => match request.method() {
                Method::Get | Method::Head => respond(api, completions, request),
                // Its thread is there as long as this one.
                _ => drop(changes.send(Change::Request(request))),
            },
            Err(error) if error.raw_os_error().is_some() => give_up(),
            Err(_) => return drop(changes.send(Change::End)),
        }
    }
}

/// Answers the requests that change something until no more can come.
pub(super) fn change(api: &Api, completions: &Completions, changes: &Receiver<Change>) {
    for change in changes {
        match change {
            Change::Request(request) => respond(api, completions, request),
            Change::Note(act) => api.store.audit(&act),
            Change::End => return,
        }
    }
}

fn respond(api: &Api, completions: &Completions, mut request: tiny_http::Request) {
    // A panic is a bug here; it ends this request and no other.
    let answer = catch_unwind(AssertUnwindSafe(|| answer(api, &mut request)))
        .unwrap_or_else(|_| ApiError::internal().into());
    let number = header(&request, rewrite::NUMBER);
    let number = number.and_then(|number| number.value.as_str().parse().ok());
    // The gate gets its answers as they are, and nothing over the socket.
    let mut writer = request.into_writer();
    match number {
        Some(number) => completions.answer(number, answer),
        None => {
            let sent = answer.whole(false, false, false).and_then(|whole| {
                writer.write_all(&whole)?;
                writer.flush()
            });
            if let Err(error) = sent {
                log::warn!("an answer did not reach the operator: {error}");
            }
        }
    }
}

fn answer(api: &Api, request: &mut tiny_http::Request) -> Answer {
    let mut body = Vec::with_capacity(request.body_length().unwrap_or(0));
    if request.as_reader().read_to_end(&mut body).is_err() {
        return ApiError::internal().into();
    }
    let peer = match header(request, rewrite::CLIENT).map(|h| Client::parse(h.value.as_str())) {
        // Only the gate and the operator's commands can open the socket, and
        // the gate always names the client.
        None => Peer::Local,
        Some(Ok(client)) => {
            let way = header(request, rewrite::WAY).map_or("", |h| h.value.as_str());
            let has = |word| way.split(' ').any(|w| w == word);
            Peer::Remote { client, plain: has("plain"), unheeded: has("unheeded") }
        }
        Some(Err(_)) => return ApiError::internal().into(),
    };
    let (path, query) = match request.url().split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (request.url(), None),
    };
    let fields = request.headers().iter();
    let fields: Vec<_> = fields.map(|h| (h.field.as_str().as_str(), h.value.as_bytes())).collect();
    api.answer(&Request {
        method: request.method().as_str(),
        path,
        query,
        authorization: header(request, "Authorization").map(|h| h.value.as_bytes()),
        peer,
        fields: &fields,
        body: &body,
    })
}

fn header<'a>(request: &'a tiny_http::Request, name: &'static str) -> Option<&'a Header> {
    request.headers().iter().find(|h| h.field.equiv(name))
}
