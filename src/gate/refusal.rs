//! The answers that the gate gives by itself, without asking anybody.

use std::io::Write as _;

/// An answer of the gate's own. All of them close the connection: after a
/// request that was refused nobody can be sure where the next one begins.
///
/// The texts are constants, so that nothing a client sent is echoed to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// The status code.
    pub status: u16,
    reason: &'static str,
    code: &'static str,
    message: &'static str,
    allow: bool,
}

const fn refusal(
    status: u16,
    reason: &'static str,
    code: &'static str,
    message: &'static str,
) -> Refusal {
    Refusal { status, reason, code, message, allow: status == 405 }
}

const fn bad(message: &'static str) -> Refusal {
    refusal(400, "Bad Request", "bad_request", message)
}

impl Refusal {
    /// Bytes that no HTTP/1.x request head holds: RFC 9112, 2.2 and 5.
    pub const MALFORMED: Self = bad("the request is not well-formed HTTP/1.1");
    /// RFC 9112, 3.2: one `Host`, and one that names a host.
    pub const BAD_HOST: Self = bad("the request needs exactly one valid Host header");
    /// RFC 9112, 6.3: a length that two readers could understand differently.
    pub const BAD_LENGTH: Self = bad("Content-Length must be given once, as a plain number");
    /// RFC 9112, 3.2.1: only the origin form is for servers that are no proxy.
    pub const BAD_TARGET: Self = bad("the request target must be a path");
    /// More names in `Connection` than an honest client writes.
    pub const BAD_CONNECTION: Self = bad("the Connection header names too much");
    /// RFC 9110, 5.3: `Authorization` is no list, and who reads which one is anybody's guess.
    pub const TWO_CREDENTIALS: Self = bad("Authorization must be given at most once");
    /// An upgrade request with a body: the bytes would belong to nobody.
    pub const UPGRADE_BODY: Self = bad("a WebSocket handshake has no body");
    /// `TRACE` and `CONNECT`, which an origin server has no use for.
    pub const METHOD: Self =
        refusal(405, "Method Not Allowed", "method_not_allowed", "this method is never allowed");
    /// Head or body did not arrive in time.
    pub const TOO_SLOW: Self =
        refusal(408, "Request Timeout", "timeout", "the request took too long to arrive");
    /// `Transfer-Encoding` in a request: nothing to smuggle with (RFC 9112, 11.2).
    pub const NO_LENGTH: Self = refusal(
        411,
        "Length Required",
        "length_required",
        "send Content-Length instead of Transfer-Encoding",
    );
    /// The body is longer than the gate accepts.
    pub const TOO_LARGE: Self =
        refusal(413, "Content Too Large", "too_large", "the request body is too large");
    /// The target is longer than the gate accepts.
    pub const TARGET_TOO_LONG: Self =
        refusal(414, "URI Too Long", "uri_too_long", "the request target is too long");
    /// An expectation other than `100-continue`: RFC 9110, 10.1.1.
    pub const EXPECTATION: Self = refusal(
        417,
        "Expectation Failed",
        "expectation_failed",
        "no expectation but 100-continue can be met",
    );
    /// The head is longer, or has more fields, than the gate accepts.
    pub const HEAD_TOO_LARGE: Self = refusal(
        431,
        "Request Header Fields Too Large",
        "headers_too_large",
        "the request head is too large",
    );
    /// The file that an answer names cannot be read.
    pub const NO_FILE: Self =
        refusal(500, "Internal Server Error", "internal", "the answer could not be read");
    /// What came back over the relay is no answer.
    pub const BAD_ANSWER: Self =
        refusal(502, "Bad Gateway", "bad_gateway", "the request was not answered properly");
    /// Nobody listens behind the gate, for example while the server stops.
    pub const NO_ANSWER: Self =
        refusal(503, "Service Unavailable", "unavailable", "the server cannot answer right now");
    /// Every slot is taken by a client that may keep it.
    pub const FULL: Self =
        refusal(503, "Service Unavailable", "too_many_connections", "too many connections");
    /// The handler took too long.
    pub const NO_ANSWER_IN_TIME: Self =
        refusal(504, "Gateway Timeout", "gateway_timeout", "the request took too long to answer");

    /// The whole answer, ready to send; without its body when `head_only`. `secure`: the
    /// client came over HTTPS and shall go on so.
    #[must_use]
    pub fn answer(&self, head_only: bool, secure: bool) -> Vec<u8> {
        let body =
            format!(r#"{{"error":{{"code":"{}","message":"{}"}}}}"#, self.code, self.message);
        let mut out = Vec::with_capacity(512);
        let allow = if self.allow { "Allow: GET, HEAD, POST, PUT, PATCH, DELETE\r\n" } else { "" };
        let hsts = if secure { "Strict-Transport-Security: max-age=31536000\r\n" } else { "" };
        // Writing to a Vec cannot fail.
        let _ = write!(
            out,
            "HTTP/1.1 {} {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
             Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n\
             Content-Security-Policy: default-src 'none'; frame-ancestors 'none'; sandbox\r\n\
             X-Frame-Options: DENY\r\nReferrer-Policy: no-referrer\r\n{allow}{hsts}\
             Connection: close\r\n\r\n",
            self.status,
            self.reason,
            body.len(),
        );
        if !head_only {
            out.extend_from_slice(body.as_bytes());
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_whole_json_and_says_that_it_closes() {
        let text = String::from_utf8(Refusal::METHOD.answer(false, true)).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let value: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(value["error"]["code"], "method_not_allowed");
        for line in [
            "HTTP/1.1 405 Method Not Allowed",
            "Cache-Control: no-store",
            "X-Content-Type-Options: nosniff",
            "Connection: close",
            "Strict-Transport-Security: max-age=31536000",
            "Allow: GET, HEAD, POST, PUT, PATCH, DELETE",
            &format!("Content-Length: {}", body.len()),
        ] {
            assert!(head.lines().any(|l| l == line), "{line} in {head}");
        }
        let head = Refusal::TOO_LARGE.answer(true, false);
        assert!(head.ends_with(b"\r\n\r\n") && !head.windows(6).any(|w| w == b"Strict"));
    }
}
