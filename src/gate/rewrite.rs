//! Heads as they are passed on: a request's inwards, an answer's outwards.

use super::head::{Fields, Head, Kind, NO_FIELDS, connection_names, kind};
use super::{Also, Source, internal_headers};
use data_encoding::HEXLOWER;
use httparse::{Header, Status};
use std::ffi::OsString;
use std::io::Write as _;
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;

/// Fields that the handler looks at in every request.
const PASSED: [&str; 2] = ["authorization", "content-type"];

/// Writes the head that tiny_http gets: what the handler looks at and nothing
/// else, so that no field of a client's choice can trouble it, and with the client
/// under a name that no client can send.
pub(super) fn request(head: &Head<'_, '_>, source: &Source, also: &Also, out: &mut Vec<u8>) {
    for part in [head.method, " ", head.target, " HTTP/1.1\r\n"] {
        out.extend_from_slice(part.as_bytes());
    }
    let more: &[&str] = if head.target.starts_with(also.below) { &also.fields } else { &[] };
    let passed = |name: &str| PASSED.iter().chain(more).any(|n| name.eq_ignore_ascii_case(n));
    for field in head.fields {
        let needed = match kind(field.name) {
            Kind::Other | Kind::Authorization if passed(field.name) => {
                // RFC 9110, 7.6.1: a field that `Connection` names belongs to that hop.
                let own = |name: &[u8]| name.eq_ignore_ascii_case(field.name.as_bytes());
                !connection_names(head.fields).any(own)
            }
            _ => false,
        };
        if needed {
            push_field(out, field);
        }
    }
    out.extend_from_slice(internal_headers::CLIENT.as_bytes());
    // Writing to a Vec cannot fail.
    let _ = write!(out, ": {}\r\n", source.client);
    if source.https {
        out.extend_from_slice(internal_headers::SECURE.as_bytes());
        out.extend_from_slice(b": 1\r\n");
    }
    if head.length > 0 {
        let _ = write!(out, "Content-Length: {}\r\n", head.length);
    }
    out.extend_from_slice(b"\r\n");
}

fn push_field(out: &mut Vec<u8>, field: &Header<'_>) {
    out.extend_from_slice(field.name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(field.value);
    out.extend_from_slice(b"\r\n");
}

/// What the head of an answer from tiny_http says.
#[derive(Debug)]
pub(super) struct AnswerHead {
    /// Bytes of the head as it was received.
    pub received: usize,
    /// Bytes of body that follow it over the relay.
    pub body: usize,
    /// [`internal_headers::PROVED`]: the client that sent the request has proved the token.
    pub proved: bool,
    /// Where the body is, when it does not follow.
    pub elsewhere: Option<BodySource>,
    /// The head for the client, without `Connection`, the empty line at its end
    /// and, when the body is elsewhere, `Content-Length`.
    pub passed: Vec<u8>,
}

/// The body of an answer that does not come over the relay.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum BodySource {
    /// [`internal_headers::FILE`]: the content of this file.
    File(PathBuf),
    /// [`internal_headers::GENERATED`]: what is made by this name.
    Generated(String),
}

/// What came over the relay cannot be an answer.
#[derive(Debug)]
pub(super) struct NotAnAnswer;

/// Reads the head of tiny_http's answer; `None` while it is not whole.
pub(super) fn answer(received: &[u8], to_head: bool) -> Result<Option<AnswerHead>, NotAnAnswer> {
    let mut fields: Fields<'_> = NO_FIELDS;
    let mut answer = httparse::Response::new(&mut fields);
    let length = match answer.parse(received) {
        Ok(Status::Complete(length)) => length,
        Ok(Status::Partial) => return Ok(None),
        Err(_) => return Err(NotAnAnswer),
    };
    let status = answer.code.filter(|c| *c >= 200).ok_or(NotAnAnswer)?;
    // RFC 9110, 8.6: these two say nothing about a length here.
    let bodiless = status == 204 || status == 304;
    let mut passed = Vec::with_capacity(length + 64);
    let reason = answer.reason.unwrap_or_default();
    let _ = write!(passed, "HTTP/1.1 {status} {reason}\r\n");
    let mut body = None;
    let mut proved = false;
    let mut elsewhere = None;
    for field in answer.headers.iter() {
        match kind(field.name) {
            Kind::ContentLength if body.is_some() => return Err(NotAnAnswer),
            Kind::ContentLength => body = Some(plain_number(field.value)?),
            Kind::TransferEncoding => return Err(NotAnAnswer),
            Kind::Connection | Kind::Upgrade => {}
            Kind::Hop if field.name.eq_ignore_ascii_case(internal_headers::PROVED) => {
                proved = field.value == b"1";
            }
            Kind::Hop if field.name.eq_ignore_ascii_case(internal_headers::FILE) => {
                // In hexadecimal, since a path may hold any byte.
                let path = HEXLOWER.decode(field.value).map_err(|_| NotAnAnswer)?;
                elsewhere = Some(BodySource::File(OsString::from_vec(path).into()));
            }
            Kind::Hop if field.name.eq_ignore_ascii_case(internal_headers::GENERATED) => {
                let name = str::from_utf8(field.value).map_err(|_| NotAnAnswer)?;
                elsewhere = Some(BodySource::Generated(name.to_owned()));
            }
            Kind::Hop => {}
            // Which library answers is nobody's business.
            Kind::Other if field.name.eq_ignore_ascii_case("server") => {}
            _ => push_field(&mut passed, field),
        }
    }
    let declared = match body {
        Some(declared) => declared,
        None if bodiless => 0,
        None => return Err(NotAnAnswer),
    };
    if !bodiless && elsewhere.is_none() {
        push_length(&mut passed, declared as u64);
    }
    let body = if bodiless || to_head { 0 } else { declared };
    Ok(Some(AnswerHead { received: length, body, proved, elsewhere, passed }))
}

/// Adds `Content-Length` to a head.
pub(super) fn push_length(head: &mut Vec<u8>, length: u64) {
    let _ = write!(head, "Content-Length: {length}\r\n");
}

fn plain_number(text: &[u8]) -> Result<usize, NotAnAnswer> {
    std::str::from_utf8(text).ok().and_then(|t| t.parse().ok()).ok_or(NotAnAnswer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gate::head::judge;
    use crate::model::Client;

    fn passed_on(bytes: &[u8], https: bool) -> String {
        let mut room = NO_FIELDS;
        let head = judge(bytes, &mut room, 1024).unwrap();
        let client = Client::parse("2001:db8::1").unwrap();
        let mut out = Vec::new();
        let also =
            Also { below: "/api/hooks/", fields: vec!["x-hub-signature-256", "x-gitlab-token"] };
        request(&head, &Source { client, trusted_proxy: false, https }, &also, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn what_belongs_to_one_hop_stays_here_and_nobody_names_the_client_but_the_gate() {
        let text = passed_on(
            b"POST /a?b=1 HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, X-Own, host\r\n\
              Keep-Alive: 5\r\nTE: chunked\r\nx-own: 1\r\nX-Gate-Client: 10.0.0.1\r\n\
              x-gate-proved: 1\r\nAuthorization: Bearer t\r\nExpect: 100-continue\r\n\
              Upgrade: h2c\r\nProxy-Connection: close\r\nTrailer: a\r\nContent-Length: 003\r\n\
              Proxy-Authorization: p\r\nCookie: a=\xc3\xa4\r\nX-Forwarded-For: 1.1.1.1\r\n\r\n",
            true,
        );
        assert_eq!(
            text,
            "POST /a?b=1 HTTP/1.1\r\nAuthorization: Bearer t\r\n\
             X-Gate-Client: 2001:db8::/64\r\nX-Gate-Secure: 1\r\n\
             Content-Length: 3\r\n\r\n"
        );
        let text = passed_on(b"GET / HTTP/1.1\r\nhost: x\r\nCookie: a=b\r\n\r\n", false);
        assert_eq!(text, "GET / HTTP/1.1\r\nX-Gate-Client: 2001:db8::/64\r\n\r\n");
    }

    #[test]
    fn some_fields_are_passed_on_where_they_are_asked_for_and_nowhere_else() {
        let fields = "X-Hub-Signature-256: sha256=00\r\nx-gitlab-TOKEN: t\r\n";
        let request = |target: &str| {
            passed_on(
                format!("POST {target} HTTP/1.1\r\nHost: x\r\n{fields}X-Other: 1\r\n\r\n")
                    .as_bytes(),
                false,
            )
        };
        let hook = request("/api/hooks/aaaaaaaaaa");
        assert!(hook.contains(fields) && !hook.contains("X-Other"), "{hook}");
        for elsewhere in ["/api/apps", "/api/hooks", "/x/api/hooks/a"] {
            assert!(!request(elsewhere).contains("Hub"), "{elsewhere}");
        }
    }

    #[test]
    fn the_gates_own_marks_do_not_leave_the_house() {
        let raw = b"HTTP/1.1 200 OK\r\nServer: tiny-http (Rust)\r\nX-Gate-Proved: 1\r\n\
            X-Gate-File: 2f746d702f66\r\nConnection: keep-alive\r\nX-Mine: 1\r\nContent-Length: 0\r\n\r\n";
        let head = answer(raw, false).unwrap().unwrap();
        assert_eq!((head.received, head.body, head.proved), (raw.len(), 0, true));
        assert_eq!(head.elsewhere, Some(BodySource::File("/tmp/f".into())));
        assert_eq!(head.passed, b"HTTP/1.1 200 OK\r\nX-Mine: 1\r\n");
        assert!(answer(&raw[..40], false).unwrap().is_none());
    }

    #[test]
    fn an_answer_has_a_body_or_not_by_its_status_and_the_method() {
        let full = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
        assert_eq!(answer(full, false).unwrap().unwrap().body, 5);
        let to_head = answer(full, true).unwrap().unwrap();
        assert_eq!(to_head.body, 0);
        assert!(to_head.passed.ends_with(b"Content-Length: 5\r\n"));
        for status in ["204 No Content", "304 Not Modified"] {
            let raw = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
            let head = answer(raw.as_bytes(), false).unwrap().unwrap();
            assert_eq!((head.body, head.passed.len()), (0, 11 + status.len()), "{status}");
        }
        for bad in [
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
            "HTTP/1.1 100 Continue\r\n\r\n",
            "garbage\r\n\r\n",
        ] {
            assert!(answer(bad.as_bytes(), false).is_err(), "{bad}");
        }
    }
}
