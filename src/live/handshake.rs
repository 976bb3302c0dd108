//! The request that opens a WebSocket: judged, then refused or accepted (RFC 6455, chapter 4).

use crate::auth::{Auth, Session, Verdict};
use crate::gate::answer::Answer;
use crate::gate::upgrade::Upgrade;
use crate::journal::Position;
use crate::model::{Secret, percent_decoded};
use data_encoding::BASE64;
use rustix::net::sockopt::set_socket_send_buffer_size;
use std::io::{self, Write};
use std::net::TcpStream;
use tungstenite::handshake::derive_accept_key;

/// Bytes that the kernel may hold back for one peer. Left alone it would keep
/// some 4 MiB for each that does not read.
const SEND_BUFFER: usize = 64 * 1024;

/// A refusal: a status, a code for programs, a sentence for people.
pub(super) struct Refusal(pub Answer);

/// P23: a browser says which page connects; only our own pages may.
pub(super) fn check_origin(upgrade: &Upgrade, dashboard: Option<&str>) -> Result<(), Refusal> {
    // Scripts send none; a browser never sends two.
    if all(upgrade, "origin").next().is_none() {
        return Ok(());
    }
    let origin = one(upgrade, "origin").map(String::from_utf8_lossy).unwrap_or_default();
    let origin = origin.to_ascii_lowercase();
    let own = one(upgrade, "host").is_some_and(|host| {
        let host = String::from_utf8_lossy(host).to_ascii_lowercase();
        // Browsers leave out the port that a scheme implies; others may not.
        ["http", "https"].iter().zip([":80", ":443"]).any(|(scheme, implied)| {
            origin == format!("{scheme}://{}", host.strip_suffix(implied).unwrap_or(&host))
                || origin == format!("{scheme}://{host}")
        })
    });
    if own || dashboard.is_some_and(|d| d.eq_ignore_ascii_case(&origin)) {
        return Ok(());
    }
    let text = "a page of another origin may not open a WebSocket here; when the dashboard is \
                reached under another name, set DASHBOARD_ORIGIN to its https://host";
    Err(Refusal::new(403, "wrong_origin", text))
}

/// P8: during a lockout whatever shows a token or a ticket learns that alone, from
/// whichever page, however many, and in a header too, where they open no WebSocket.
pub(super) fn check_lockout(upgrade: &Upgrade, auth: &Auth) -> Result<(), Refusal> {
    let bearer = |field: &[u8]| field.to_ascii_lowercase().starts_with(b"bearer ");
    let shows_one = ["token", "ticket"].iter().any(|name| !parameters(upgrade, name).is_empty())
        || all(upgrade, "authorization").any(bearer);
    let seconds = auth.locked_out(upgrade.source.client).filter(|_| shows_one);
    seconds.map_or(Ok(()), |seconds| Err(Refusal::locked(seconds)))
}

/// P3: `?token=` or `?ticket=`, one of them, once.
pub(super) fn authenticate(upgrade: &Upgrade, auth: &Auth) -> Result<Session, Refusal> {
    let (tokens, tickets) = (parameters(upgrade, "token"), parameters(upgrade, "ticket"));
    let verdict = match (&tokens[..], &tickets[..]) {
        ([], []) => auth.decide(None, upgrade.source.client),
        ([token], []) => auth.decide(Some(token.expose().as_bytes()), upgrade.source.client),
        ([], [ticket]) => auth.redeem(ticket.expose().as_bytes(), upgrade.source.client),
        _ => {
            let text = "give one ?token= or one ?ticket=, not more";
            return Err(Refusal::new(400, "two_tokens", text));
        }
    };
    match verdict {
        Verdict::Allowed(session) => Ok(session),
        Verdict::Locked { retry_after_seconds } => Err(Refusal::locked(retry_after_seconds)),
        Verdict::Refused => {
            let text = "this is not the admin token, or the ticket was used or is older than 60 s";
            Err(Refusal::new(401, "token_wrong", text)
                .with("WWW-Authenticate", "Bearer error=\"invalid_token\""))
        }
        Verdict::Anonymous => {
            let text =
                "sign in first: add ?ticket= from POST /api/ws-ticket, or ?token=<admin token>";
            Err(Refusal::new(401, "token_missing", text).with("WWW-Authenticate", "Bearer"))
        }
    }
}

/// `?from=`: the place in the log from which on it is sent.
pub(super) fn from(upgrade: &Upgrade) -> Result<Option<Position>, Refusal> {
    let given = parameters(upgrade, "from").pop();
    given
        .map(|place| Position::parse(place.expose()))
        .transpose()
        .map_err(|why| Refusal::new(400, "invalid_query", format!("from {why}")))
}

/// The answer to the client's key.
pub(super) fn accept_key(upgrade: &Upgrade) -> Result<String, Refusal> {
    if one(upgrade, "sec-websocket-version").map(<[u8]>::trim_ascii) != Some(b"13") {
        let text = "only version 13 of the WebSocket protocol is spoken here";
        return Err(Refusal::new(426, "websocket_version", text)
            .with("Sec-WebSocket-Version", 13)
            .with("Upgrade", "websocket"));
    }
    let key = one(upgrade, "sec-websocket-key").unwrap_or_default().trim_ascii();
    if BASE64.decode(key).is_ok_and(|bytes| bytes.len() == 16) {
        return Ok(derive_accept_key(key));
    }
    let text = "Sec-WebSocket-Key must be there once, 16 bytes in base64";
    Err(Refusal::new(400, "websocket_key", text))
}

/// Accepts: from here on the socket speaks WebSocket, and never blocks.
pub(super) fn accept(mut stream: &TcpStream, key: &str) -> io::Result<()> {
    let head = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {key}\r\n\r\n"
    );
    stream.write_all(head.as_bytes())?;
    stream.set_nonblocking(true)?;
    Ok(set_socket_send_buffer_size(stream, SEND_BUFFER)?)
}

fn all<'a>(upgrade: &'a Upgrade, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
    upgrade.headers.iter().filter(move |(n, _)| n == name).map(|(_, value)| value.as_slice())
}

/// The value of a header field that stands there exactly once.
fn one<'a>(upgrade: &'a Upgrade, name: &'a str) -> Option<&'a [u8]> {
    let mut all = all(upgrade, name);
    all.next().filter(|_| all.next().is_none())
}

/// The values of a query parameter, percent-encoding undone (P6: nothing else is).
/// An empty one counts as absent, and `+` is a plus: tokens hold no spaces.
fn parameters(upgrade: &Upgrade, name: &str) -> Vec<Secret> {
    let query = upgrade.query.as_deref().unwrap_or_default();
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let named = pairs.filter(|(n, value)| *n == name && !value.is_empty());
    // A value that is not encoded well is taken as it is.
    let decoded = |value: &str| percent_decoded(value).unwrap_or_else(|| value.to_owned());
    named.map(|(_, value)| Secret::new(decoded(value))).collect()
}
impl Refusal {
    pub(super) fn new(status: u16, code: &str, message: impl AsRef<str>) -> Self {
        Self(Answer::error(status, code, message.as_ref(), None))
    }

    pub(super) fn with(mut self, name: &'static str, value: impl ToString) -> Self {
        self.0.header(name, value.to_string());
        self
    }

    fn locked(seconds: u32) -> Self {
        let text = format!("too many wrong tokens from this address; try again in {seconds} s");
        Self::new(429, "locked_out", text).with("Retry-After", seconds)
    }
}
