//! An answer as plain data.

use super::ApiError;
use serde::Serialize;
use std::borrow::Cow;
use std::path::PathBuf;

/// What goes back to the client.
#[derive(Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// Headers beyond those that every answer has.
    pub headers: Vec<(&'static str, Cow<'static, str>)>,
    /// The body.
    pub body: Body,
    /// Whether the request proved the token: its connection is not given away
    /// when the gate is full.
    pub proved: bool,
}

/// The body of an answer.
#[derive(Debug)]
pub enum Body {
    /// These bytes.
    Bytes(Vec<u8>),
    /// Bytes that are part of the program.
    Static(&'static [u8]),
    /// What the file holds now; it is streamed outside the request thread.
    File(PathBuf),
    /// What [`super::generate`] makes by this name, outside the request thread.
    Generated(String),
}

/// What an API answer tells a browser: it is no page, and nobody stores it (P23).
const STRICT: [(&str, &str); 5] = [
    ("Cache-Control", "no-store"),
    ("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'; sandbox"),
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Referrer-Policy", "no-referrer"),
];

impl Answer {
    fn strict(status: u16, content_type: &'static str, body: Body) -> Self {
        let mut headers = Vec::with_capacity(STRICT.len() + 3);
        headers.push(("Content-Type", Cow::Borrowed(content_type)));
        headers.extend(STRICT.map(|(name, value)| (name, Cow::Borrowed(value))));
        Self { status, headers, body, proved: false }
    }

    /// A JSON body.
    pub(super) fn json(status: u16, value: &impl Serialize) -> Self {
        match serde_json::to_vec(value) {
            Ok(bytes) => Self::json_bytes(status, bytes),
            Err(error) => {
                log::error!("an answer could not be written as JSON: {error}");
                ApiError::internal().into()
            }
        }
    }

    /// JSON that is written already.
    pub(super) fn json_bytes(status: u16, bytes: Vec<u8>) -> Self {
        Self::strict(status, "application/json", Body::Bytes(bytes))
    }

    /// JSON that is part of the program.
    pub(super) fn static_json(bytes: &'static [u8]) -> Self {
        Self::strict(200, "application/json", Body::Static(bytes))
    }

    /// Plain text.
    pub(super) fn text(text: String) -> Self {
        Self::strict(200, "text/plain; charset=utf-8", Body::Bytes(text.into_bytes()))
    }

    /// The content of a text file.
    pub(super) fn text_file(path: PathBuf) -> Self {
        Self::strict(200, "text/plain; charset=utf-8", Body::File(path))
    }

    /// A text that takes a while to make.
    pub(super) fn generated(name: String) -> Self {
        Self::strict(200, "text/plain; charset=utf-8", Body::Generated(name))
    }

    /// Done, nothing to say.
    pub(super) fn no_content() -> Self {
        Self::strict(204, "text/plain; charset=utf-8", Body::Static(b""))
    }

    /// An answer with headers of its own: the dashboard's files.
    pub(super) fn page(
        status: u16,
        headers: Vec<(&'static str, Cow<'static, str>)>,
        body: &'static [u8],
    ) -> Self {
        Self { status, headers, body: Body::Static(body), proved: false }
    }

    /// Adds a header.
    pub(super) fn header(&mut self, name: &'static str, value: impl Into<Cow<'static, str>>) {
        self.headers.push((name, value.into()));
    }
}

impl From<ApiError> for Answer {
    fn from(error: ApiError) -> Self {
        let mut answer = Self::json(error.status, &error.as_json());
        if let Some((name, value)) = error.header {
            answer.header(name, value);
        }
        answer
    }
}
