//! The request that opens a WebSocket: judged, then refused or accepted (RFC 6455, chapter 4).

use super::LiveLimits;
use super::wire::Wire;
use crate::auth::{Auth, Session, Verdict};
use crate::gate::answer::Answer;
use crate::model::{Client, Secret};
use data_encoding::BASE64;
use log::error;
use std::io::{self, Write};
use std::net::{Shutdown, TcpStream};
use tungstenite::handshake::derive_accept_key;

/// A request for a WebSocket, whole and well-formed, from the front door.
pub struct Handshake {
    /// The client's socket.
    pub stream: TcpStream,
    /// What the client sent after the request's head.
    pub leftover: Vec<u8>,
    /// The path, as sent.
    pub path: String,
    /// What follows the `?`, as sent.
    pub query: Option<String>,
    /// Header fields, names in lower case.
    pub headers: Vec<(String, Vec<u8>)>,
    /// Who asks.
    pub client: Client,
    /// Whether the client came over HTTPS.
    pub secure: bool,
    /// To be called once the client has proved the token.
    pub proved: Box<dyn Fn() + Send>,
}

/// A refusal: a status, a code for programs, a sentence for people.
pub(super) struct Refusal(Answer);

impl Handshake {
    /// P23: a browser says which page connects; only our own pages may.
    pub(super) fn check_origin(&self, dashboard: Option<&str>) -> Result<(), Refusal> {
        let origins: Vec<&[u8]> = self.all("origin").collect();
        let [origin] = origins[..] else {
            // Scripts send none; a browser never sends two.
            return if origins.is_empty() { Ok(()) } else { Err(Refusal::origin()) };
        };
        let origin = String::from_utf8_lossy(origin).to_ascii_lowercase();
        let own = self.one("host").is_some_and(|host| {
            let host = String::from_utf8_lossy(host).to_ascii_lowercase();
            // Browsers leave out the port that a scheme implies; others may not.
            ["http", "https"].iter().zip([":80", ":443"]).any(|(scheme, implied)| {
                origin == format!("{scheme}://{}", host.strip_suffix(implied).unwrap_or(&host))
                    || origin == format!("{scheme}://{host}")
            })
        });
        if own || dashboard.is_some_and(|d| d.eq_ignore_ascii_case(&origin)) {
            Ok(())
        } else {
            Err(Refusal::origin())
        }
    }

    /// P8: during a lockout whatever shows a token or a ticket learns that alone, from
    /// whichever page, however many, and in a header too, where they open no WebSocket.
    pub(super) fn check_lockout(&self, auth: &Auth) -> Result<(), Refusal> {
        let shows = |name| !self.parameters(name).is_empty();
        let scheme =
            |value: &[u8]| value.get(..7).is_some_and(|s| s.eq_ignore_ascii_case(b"Bearer "));
        match auth.locked_out(self.client) {
            Some(seconds)
                if shows("token") || shows("ticket") || self.all("authorization").any(scheme) =>
            {
                Err(Refusal::locked(seconds))
            }
            _ => Ok(()),
        }
    }

    /// P3: `?token=` or `?ticket=`, one of them, once.
    pub(super) fn authenticate(&self, auth: &Auth) -> Result<Session, Refusal> {
        let (tokens, tickets) = (self.parameters("token"), self.parameters("ticket"));
        let verdict = match (&tokens[..], &tickets[..]) {
            ([], []) => auth.decide(None, self.client),
            ([token], []) => auth.decide(Some(token.expose().as_bytes()), self.client),
            ([], [ticket]) => auth.redeem(ticket.expose().as_bytes(), self.client),
            _ => return Err(Refusal::two_credentials()),
        };
        match verdict {
            Verdict::Allowed(session) => Ok(session),
            Verdict::Locked { retry_after_seconds } => Err(Refusal::locked(retry_after_seconds)),
            Verdict::Refused => Err(Refusal::wrong_token()),
            Verdict::Anonymous => Err(Refusal::no_token()),
        }
    }

    /// The answer to the client's key.
    pub(super) fn accept_key(&self) -> Result<String, Refusal> {
        let names = |field: &str, word: &str| {
            self.all(field).any(|value| {
                value
                    .split(|b| *b == b',')
                    .any(|w| w.trim_ascii().eq_ignore_ascii_case(word.as_bytes()))
            })
        };
        if !names("upgrade", "websocket") || !names("connection", "upgrade") {
            return Err(Refusal::upgrade_required());
        }
        if self.one("sec-websocket-version").map(<[u8]>::trim_ascii) != Some(b"13") {
            return Err(Refusal::version());
        }
        let key = self.one("sec-websocket-key").map(<[u8]>::trim_ascii).ok_or_else(Refusal::key)?;
        match BASE64.decode(key) {
            Ok(bytes) if bytes.len() == 16 => Ok(derive_accept_key(key)),
            _ => Err(Refusal::key()),
        }
    }

    /// Accepts: from here on the socket speaks WebSocket.
    pub(super) fn accept(self, key: &str, limits: &LiveLimits) -> io::Result<(Wire, Vec<u8>)> {
        let head = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {key}\r\n\r\n"
        );
        let mut stream = self.stream;
        stream.set_write_timeout(Some(limits.stalled_after))?;
        stream.write_all(head.as_bytes())?;
        Ok((Wire::new(stream)?, self.leftover))
    }

    fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.headers.iter().filter(move |(n, _)| n == name).map(|(_, value)| value.as_slice())
    }

    /// The value of a header field that stands there exactly once.
    fn one<'a>(&'a self, name: &'a str) -> Option<&'a [u8]> {
        let mut all = self.all(name);
        all.next().filter(|_| all.next().is_none())
    }

    /// The values of a query parameter, percent-encoding undone (P6: nothing else is).
    /// An empty one counts as absent, and `+` is a plus: tokens hold no spaces.
    fn parameters(&self, name: &str) -> Vec<Secret> {
        let query = self.query.as_deref().unwrap_or_default();
        let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        let named = pairs.filter(|(n, value)| *n == name && !value.is_empty());
        named.map(|(_, value)| Secret::new(percent_decoded(value))).collect()
    }
}

fn percent_decoded(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let digit = |i: usize| after.get(i).and_then(|b| char::from(*b).to_digit(16));
        match (first, digit(0), digit(1)) {
            (b'%', Some(high), Some(low)) => {
                out.extend(u8::try_from(high * 16 + low));
                rest = &after[2..];
            }
            _ => {
                out.push(*first);
                rest = after;
            }
        }
    }
    // What is not UTF-8 is no token either, and stays wrong with marks in it.
    String::from_utf8(out).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned())
}

impl Refusal {
    fn new(status: u16, code: &str, message: impl AsRef<str>) -> Self {
        Self(Answer::error(status, code, message.as_ref(), None))
    }

    fn with(mut self, name: &'static str, value: impl ToString) -> Self {
        self.0.header(name, value.to_string());
        self
    }

    fn origin() -> Self {
        let text = "a page of another origin may not open a WebSocket here; when the dashboard is \
                    reached under another name, set DASHBOARD_ORIGIN to its https://host";
        Self::new(403, "wrong_origin", text)
    }

    fn two_credentials() -> Self {
        Self::new(400, "two_tokens", "give one ?token= or one ?ticket=, not more")
    }

    fn no_token() -> Self {
        let text = "sign in first: add ?ticket= from POST /api/ws-ticket, or ?token=<admin token>";
        Self::new(401, "token_missing", text).with("WWW-Authenticate", "Bearer")
    }

    fn wrong_token() -> Self {
        let text = "this is not the admin token, or the ticket was used or is older than 60 s";
        Self::new(401, "token_wrong", text)
            .with("WWW-Authenticate", "Bearer error=\"invalid_token\"")
    }

    fn locked(seconds: u32) -> Self {
        let text = format!("too many wrong tokens from this address; try again in {seconds} s");
        Self::new(429, "locked_out", text).with("Retry-After", seconds)
    }

    pub(super) fn no_route() -> Self {
        let text =
            "there is no WebSocket at this path; GET /api/openapi.json names those there are";
        Self::new(404, "not_found", text)
    }

    pub(super) fn no_deploy() -> Self {
        let text = "there is no deploy with this id; GET /api/apps/{id}/deploys lists an app's";
        Self::new(404, "deploy_not_found", text)
    }

    pub(super) fn no_app() -> Self {
        let text = "there is no app with this id; GET /api/apps lists them";
        Self::new(404, "app_not_found", text)
    }

    fn upgrade_required() -> Self {
        Self::new(426, "upgrade_required", "this path speaks WebSocket only")
            .with("Upgrade", "websocket")
    }

    fn version() -> Self {
        let text = "only version 13 of the WebSocket protocol is spoken here";
        Self::new(426, "websocket_version", text)
            .with("Sec-WebSocket-Version", 13)
            .with("Upgrade", "websocket")
    }

    fn key() -> Self {
        let text = "Sec-WebSocket-Key must be there once, 16 bytes in base64";
        Self::new(400, "websocket_key", text)
    }

    pub(super) fn closing() -> Self {
        let text = "the server is stopping; try again in a moment";
        Self::new(503, "stopping", text).with("Retry-After", 5)
    }

    pub(super) fn full(most: usize) -> Self {
        let text = format!("all {most} live connections are taken; close one and try again");
        Self::new(503, "too_many_sessions", text).with("Retry-After", 5)
    }

    pub(super) fn too_many(most: usize) -> Self {
        let text = format!("this address has {most} live connections already; close one first");
        Self::new(429, "too_many_sessions", text).with("Retry-After", 5)
    }

    pub(super) fn internal(why: &io::Error) -> Self {
        error!("cannot open a live log: {why}");
        let text = "this failed inside the server; its log says why";
        Self::new(500, "internal", text)
    }

    /// Answers with the refusal and ends the connection.
    pub(super) fn send(self, handshake: Handshake, limits: &LiveLimits) -> io::Result<()> {
        let mut stream = handshake.stream;
        stream.set_write_timeout(Some(limits.stalled_after))?;
        stream.write_all(&self.0.whole(false, handshake.secure, false)?)?;
        stream.shutdown(Shutdown::Write)
    }
}
