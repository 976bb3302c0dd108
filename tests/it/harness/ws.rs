//! A WebSocket client.

use super::http::Answer;
use super::raw::RawConn;
use serde_json::Value;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};
use tungstenite::client::IntoClientRequest;
use tungstenite::handshake::HandshakeError;
use tungstenite::http::{HeaderName, HeaderValue};
use tungstenite::{Error, Message, WebSocket};

/// An open WebSocket.
pub struct Ws {
    socket: WebSocket<TcpStream>,
}

/// How to open one.
pub struct Opening {
    address: SocketAddr,
    path: String,
    from: Option<IpAddr>,
    headers: Vec<(String, String)>,
}

impl Opening {
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn coming_from(mut self, address: [u8; 4]) -> Self {
        self.from = Some(IpAddr::from(address));
        self
    }

    /// Opens it; a refusal is the HTTP answer.
    pub fn open(self) -> Result<Ws, Answer> {
        let limit = Duration::from_secs(30);
        let stream = RawConn::open(self.address, self.from, limit).expect("a connection");
        let url = format!("ws://{}{}", self.address, self.path);
        let mut request = url.into_client_request().expect("a request");
        for (name, value) in &self.headers {
            let name = HeaderName::from_bytes(name.as_bytes()).expect("a name");
            request.headers_mut().insert(name, HeaderValue::from_str(value).expect("a value"));
        }
        match tungstenite::client(request, stream.into_stream()) {
            Ok((socket, _)) => Ok(Ws { socket }),
            Err(HandshakeError::Failure(Error::Http(refusal))) => {
                let header = |(n, v): (&HeaderName, &HeaderValue)| {
                    (n.to_string(), String::from_utf8_lossy(v.as_bytes()).into_owned())
                };
                Err(Answer {
                    version: format!("{:?}", refusal.version()),
                    status: refusal.status().as_u16(),
                    headers: refusal.headers().iter().map(header).collect(),
                    body: refusal.body().clone().unwrap_or_default(),
                })
            }
            Err(other) => panic!("{}: {other}", self.path),
        }
    }
}

impl Ws {
    /// Prepares to open `path` (with its query) of a server.
    pub fn at(address: SocketAddr, path: &str) -> Opening {
        Opening { address, path: path.to_owned(), from: None, headers: Vec::new() }
    }

    /// The next message with text, as JSON; nothing when the server has closed. Panics after the limit.
    #[track_caller]
    pub fn next(&mut self, limit: Duration) -> Option<Value> {
        let deadline = Instant::now() + limit;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "no message within {limit:?}");
            self.socket.get_ref().set_read_timeout(Some(left)).expect("a limit");
            match self.socket.read() {
                Ok(Message::Text(text)) => {
                    return Some(serde_json::from_str(text.as_str()).expect("JSON"));
                }
                Ok(_) => {}
                Err(Error::Io(e)) if comes_later(&e) => {}
                Err(end) => {
                    println!("the session has ended: {end}");
                    return None;
                }
            }
        }
    }

    /// Waits for a message that a test picks a value from.
    #[track_caller]
    pub fn find<T>(&mut self, limit: Duration, mut pick: impl FnMut(&Value) -> Option<T>) -> T {
        let deadline = Instant::now() + limit;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let message = self.next(left).expect("the socket is still open");
            if let Some(found) = pick(&message) {
                return found;
            }
        }
    }

    /// Waits until the server ends the session; its close code when it sent one.
    #[track_caller]
    pub fn wait_for_close(&mut self, limit: Duration) -> Option<u16> {
        let deadline = Instant::now() + limit;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "still open after {limit:?}");
            self.socket.get_ref().set_read_timeout(Some(left)).expect("a limit");
            match self.socket.read() {
                Ok(Message::Close(frame)) => return frame.map(|f| u16::from(f.code)),
                Ok(_) => {}
                Err(Error::Io(e)) if comes_later(&e) => {}
                Err(_) => return None,
            }
        }
    }

    /// Sends a ping and waits for its pong; whether it came.
    pub fn is_alive(&mut self) -> bool {
        if self.socket.send(Message::Ping(b"are you there"[..].into())).is_err() {
            return false;
        }
        self.socket.get_ref().set_read_timeout(Some(Duration::from_secs(30))).expect("a limit");
        loop {
            match self.socket.read() {
                Ok(Message::Pong(_)) => return true,
                Ok(Message::Close(_)) | Err(_) => return false,
                Ok(_) => {}
            }
        }
    }

    /// Sends one message.
    pub fn send(&mut self, message: Message) -> Result<(), Error> {
        self.socket.send(message)
    }

    /// Says goodbye.
    pub fn close(mut self) {
        let _gone = self.socket.close(None);
        let _gone = self.socket.flush();
    }
}

/// Whether a read failed for now only: a signal that this process got is no end either.
fn comes_later(error: &io::Error) -> bool {
    use io::ErrorKind::{Interrupted, TimedOut, WouldBlock};
    matches!(error.kind(), WouldBlock | TimedOut | Interrupted)
}
