//! An answer as plain data, and its bytes: what every one of them tells a browser stands
//! here alone (P23).

use http::StatusCode;
use serde::Serialize;
use serde_json::json;
use std::borrow::Cow;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::SystemTime;

/// A header field.
pub type Field = (&'static str, Cow<'static, str>);

/// What goes back to the client.
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// Header fields beyond those of every answer.
    pub fields: Vec<Field>,
    /// The body.
    pub body: Body,
    /// Whether the request proved the token: its connection is not given away
    /// when the gate is full.
    pub proved: bool,
}

/// The body of an answer.
pub enum Body {
    /// These bytes.
    Bytes(Cow<'static, [u8]>),
    /// What the file holds now; it is streamed by a worker.
    File(PathBuf),
    /// What this makes, in a worker, so that it may take its time.
    Made(Box<dyn FnOnce() -> io::Result<Vec<u8>> + Send>),
}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Bytes(Cow::Owned(bytes))
    }
}

impl From<&'static [u8]> for Body {
    fn from(bytes: &'static [u8]) -> Self {
        Self::Bytes(Cow::Borrowed(bytes))
    }
}

/// What each answer tells a browser, a page too: it is what it says it is, in nobody's frame,
/// and nobody hears where a reader came from.
const ALWAYS: [(&str, &str); 3] = [
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Referrer-Policy", "no-referrer"),
];

/// What an answer that is no page says besides: so, and that nobody stores it.
const NO_PAGE: [(&str, &str); 2] = [
    ("Cache-Control", "no-store"),
    ("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'; sandbox"),
];

impl Answer {
    /// An answer that is no page.
    pub fn new(status: u16, content_type: &'static str, body: impl Into<Body>) -> Self {
        let fields = NO_PAGE.map(|(name, value)| (name, Cow::Borrowed(value))).to_vec();
        Self::page(status, content_type, fields, body)
    }

    /// A file of the dashboard, which says for itself what a browser may do with it.
    pub fn page(
        status: u16,
        content_type: &'static str,
        mut fields: Vec<Field>,
        body: impl Into<Body>,
    ) -> Self {
        fields.push(("Content-Type", Cow::Borrowed(content_type)));
        Self { status, fields, body: body.into(), proved: false }
    }

    /// A JSON body.
    pub fn json(status: u16, value: &impl Serialize) -> Self {
        match serde_json::to_vec(value) {
            Ok(bytes) => Self::json_bytes(status, bytes),
            Err(error) => {
                log::error!("an answer could not be written as JSON: {error}");
                let text = br#"{"error":{"code":"internal","message":"this failed inside the server; its log says why"}}"#;
                Self::json_bytes(500, &text[..])
            }
        }
    }

    /// JSON that is written already.
    pub fn json_bytes(status: u16, bytes: impl Into<Body>) -> Self {
        Self::new(status, "application/json", bytes)
    }

    /// Plain text.
    pub fn text(text: impl Into<Body>) -> Self {
        Self::new(200, "text/plain; charset=utf-8", text)
    }

    /// What went wrong: a code for programs, a sentence for people, and the field it is about.
    pub fn error(status: u16, code: &str, message: &str, field: Option<&str>) -> Self {
        let mut value = json!({"error": {"code": code, "message": message}});
        if let Some(field) = field {
            value["error"]["field"] = field.into();
        }
        Self::json(status, &value)
    }

    /// Done, nothing to say.
    #[must_use]
    pub fn no_content() -> Self {
        Self { status: 204, ..Self::text(Vec::new()) }
    }

    /// Adds a header field.
    pub fn header(&mut self, name: &'static str, value: impl Into<Cow<'static, str>>) {
        self.fields.push((name, value.into()));
    }

    /// The head, for a body with so many bytes. `secure`: the client came over HTTPS and shall
    /// go on so.
    pub(super) fn head(&self, length: u64, secure: bool, keep_alive: bool) -> Vec<u8> {
        let date = httpdate::fmt_http_date(SystemTime::now());
        let status = StatusCode::from_u16(self.status).unwrap_or_default();
        let (code, reason) = (status.as_str(), status.canonical_reason().unwrap_or_default());
        let mut head = format!("HTTP/1.1 {code} {reason}\r\nDate: {date}\r\n");
        let mut field = |name: &str, value: &str| {
            // Values come from this program alone; a line end in one would be a bug
            // here, and must not become a field of its own.
            if !value.contains(['\r', '\n']) {
                head.extend([name, ": ", value, "\r\n"]);
            }
        };
        ALWAYS.iter().for_each(|(name, value)| field(name, value));
        self.fields.iter().for_each(|(name, value)| field(name, value));
        if secure {
            field("Strict-Transport-Security", "max-age=31536000");
        }
        // RFC 9110, 8.6: these two say nothing about a length here.
        if !matches!(self.status, 204 | 304) {
            field("Content-Length", &length.to_string());
        }
        field("Connection", if keep_alive { "keep-alive" } else { "close" });
        head.push_str("\r\n");
        head.into_bytes()
    }

    /// All of it, the body only unless it goes `to_head`.
    ///
    /// # Errors
    /// When the body cannot be read or made.
    pub fn whole(mut self, to_head: bool, secure: bool, keep_alive: bool) -> io::Result<Vec<u8>> {
        let body = match std::mem::replace(&mut self.body, Vec::new().into()) {
            Body::Bytes(bytes) => bytes,
            Body::File(path) => fs::read(path)?.into(),
            Body::Made(make) => make()?.into(),
        };
        let mut whole = self.head(body.len() as u64, secure, keep_alive);
        if !to_head {
            whole.extend_from_slice(&body);
        }
        Ok(whole)
    }
}
