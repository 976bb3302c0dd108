//! An HTTP/1.1 client of our own: it shows exactly what came, and keeps its connection as long as the server does.

use super::raw::RawConn;
use serde_json::Value;
use std::io::{self, BufRead, Read};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// A request that takes longer than this has failed.
const LIMIT: Duration = Duration::from_secs(30);

/// One answer.
#[derive(Debug, Clone)]
pub struct Answer {
    pub version: String,
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    /// The value of a header, whatever the case of its name; panics when it is there twice.
    #[track_caller]
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut all = self.headers.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name));
        let first = all.next().map(|(_, v)| v.as_str());
        assert!(all.next().is_none(), "two {name} headers: {self:?}");
        first
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|e| panic!("not JSON ({e}): {} {}", self.status, self.text()))
    }

    /// `error.code` of an error answer.
    #[track_caller]
    pub fn code(&self) -> String {
        self.json()["error"]["code"].as_str().expect("error.code").to_owned()
    }

    /// `error.message` of an error answer.
    #[track_caller]
    pub fn message(&self) -> String {
        self.json()["error"]["message"].as_str().expect("error.message").to_owned()
    }

    /// Panics with the whole answer when the status is another one.
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{self:?} {}", self.text());
        self
    }

    /// Whether the server says that it closes the connection.
    pub fn closes(&self) -> bool {
        let says = |word| {
            self.headers.iter().any(|(n, v)| {
                n.eq_ignore_ascii_case("connection") && v.to_ascii_lowercase().contains(word)
            })
        };
        says("close") || (self.version == "HTTP/1.0" && !says("keep-alive"))
    }

    /// Reads one answer; a `100 Continue` is an answer of its own.
    pub fn read(from: &mut impl BufRead, to_head: bool) -> io::Result<Self> {
        let bad = |text: &str| io::Error::new(io::ErrorKind::InvalidData, text.to_owned());
        let line = read_line(from)?;
        let mut words = line.splitn(3, ' ');
        let version = words.next().unwrap_or_default().to_owned();
        let status = words.next().and_then(|s| s.parse().ok()).ok_or_else(|| bad(&line))?;
        let mut headers = Vec::new();
        loop {
            let line = read_line(from)?;
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(':').ok_or_else(|| bad(&line))?;
            headers.push((name.to_owned(), value.trim().to_owned()));
        }
        let mut answer = Self { version, status, headers, body: Vec::new() };
        if to_head || status < 200 || status == 204 || status == 304 {
            return Ok(answer);
        }
        match answer.header("content-length") {
            Some(length) => {
                let length = length.parse().map_err(|_| bad(length))?;
                answer.body = vec![0; length];
                from.read_exact(&mut answer.body)?;
            }
            None => {
                from.read_to_end(&mut answer.body)?;
            }
        }
        Ok(answer)
    }
}

fn read_line(from: &mut impl BufRead) -> io::Result<String> {
    let mut line = Vec::new();
    from.take(64 * 1024).read_until(b'\n', &mut line)?;
    match line.strip_suffix(b"\r\n") {
        Some(text) => Ok(String::from_utf8_lossy(text).into_owned()),
        None if line.is_empty() => Err(io::ErrorKind::UnexpectedEof.into()),
        None => Err(io::Error::new(io::ErrorKind::InvalidData, "a line without CRLF")),
    }
}

/// A client. It sends `Authorization` when it was given a token.
pub struct Http {
    address: SocketAddr,
    host: String,
    from: Option<IpAddr>,
    headers: Vec<(String, String)>,
    connection: Option<RawConn>,
}

impl Http {
    pub fn new(address: SocketAddr) -> Self {
        let host = address.to_string();
        Self { address, host, from: None, headers: Vec::new(), connection: None }
    }

    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Asks for another host than the address.
    pub fn host(mut self, host: &str) -> Self {
        host.clone_into(&mut self.host);
        self
    }

    /// Carries this token.
    pub fn bearer(self, token: &str) -> Self {
        self.with("Authorization", &format!("Bearer {token}"))
    }

    /// Carries this header in every request, instead of one with the same name.
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.retain(|(n, _)| !n.eq_ignore_ascii_case(name));
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Carries this header in every request, also beside one with the same name.
    pub fn also(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Says that it comes from another address (believed with `TRUST_PROXY`).
    pub fn forwarded_for(self, address: &str) -> Self {
        self.with("X-Forwarded-For", address)
    }

    /// Connects from this address of the machine (127.0.0.0/8 has plenty).
    pub fn coming_from(mut self, address: [u8; 4]) -> Self {
        self.from = Some(IpAddr::from(address));
        self
    }

    pub fn get(&mut self, path: &str) -> Answer {
        self.request("GET", path, None)
    }

    pub fn delete(&mut self, path: &str) -> Answer {
        self.request("DELETE", path, None)
    }

    pub fn post(&mut self, path: &str, body: &Value) -> Answer {
        self.request("POST", path, Some(body.to_string().as_bytes()))
    }

    pub fn put(&mut self, path: &str, body: &Value) -> Answer {
        self.request("PUT", path, Some(body.to_string().as_bytes()))
    }

    pub fn patch(&mut self, path: &str, body: &Value) -> Answer {
        self.request("PATCH", path, Some(body.to_string().as_bytes()))
    }

    #[track_caller]
    pub fn request(&mut self, method: &str, path: &str, body: Option<&[u8]>) -> Answer {
        self.try_request(method, path, body)
            .unwrap_or_else(|e| panic!("{method} {path} got no answer: {e}"))
    }

    /// One request. A kept connection that the server has closed meanwhile is replaced once.
    pub fn try_request(
        &mut self,
        method: &str,
        path: &str,
        body: Option<&[u8]>,
    ) -> io::Result<Answer> {
        let bytes = self.bytes(method, path, body);
        if let Some(kept) = self.connection.take()
            && let Ok(answer) = self.exchange(kept, &bytes, method)
        {
            return Ok(answer);
        }
        let fresh = RawConn::open(self.address, self.from, LIMIT)?;
        self.exchange(fresh, &bytes, method)
    }

    fn exchange(
        &mut self,
        mut connection: RawConn,
        bytes: &[u8],
        method: &str,
    ) -> io::Result<Answer> {
        // A server that refuses early may close before all is sent; its answer counts.
        let sent = connection.try_send(bytes);
        let answer = connection.try_answer(method == "HEAD");
        let answer = match (sent, answer) {
            (_, Ok(answer)) => answer,
            (Err(e), _) | (_, Err(e)) => return Err(e),
        };
        if !answer.closes() {
            self.connection = Some(connection);
        }
        Ok(answer)
    }

    fn bytes(&self, method: &str, path: &str, body: Option<&[u8]>) -> Vec<u8> {
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\n", self.host);
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if let Some(body) = body {
            head.push_str("Content-Type: application/json\r\n");
            head.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        head.push_str("\r\n");
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(body.unwrap_or_default());
        bytes
    }
}
