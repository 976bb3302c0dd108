//! The answers that the gate gives by itself, without asking anybody.

use super::answer::Answer;

/// An answer of the gate's own. All of them close the connection: after a
/// request that was refused nobody can be sure where the next one begins.
///
/// The texts are constants, so that nothing a client sent is echoed to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// The status code.
    pub status: u16,
    code: &'static str,
    message: &'static str,
}

const fn refusal(status: u16, code: &'static str, message: &'static str) -> Refusal {
    Refusal { status, code, message }
}

const fn bad(message: &'static str) -> Refusal {
    refusal(400, "bad_request", message)
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
    pub const METHOD: Self = refusal(405, "method_not_allowed", "this method is never allowed");
    /// Head or body did not arrive in time.
    pub const TOO_SLOW: Self = refusal(408, "timeout", "the request took too long to arrive");
    /// `Transfer-Encoding` in a request: nothing to smuggle with (RFC 9112, 11.2).
    pub const NO_LENGTH: Self =
        refusal(411, "length_required", "send Content-Length instead of Transfer-Encoding");
    /// The body is longer than the gate accepts.
    pub const TOO_LARGE: Self = refusal(413, "too_large", "the request body is too large");
    /// The target is longer than the gate accepts.
    pub const TARGET_TOO_LONG: Self =
        refusal(414, "uri_too_long", "the request target is too long");
    /// An expectation other than `100-continue`: RFC 9110, 10.1.1.
    pub const EXPECTATION: Self =
        refusal(417, "expectation_failed", "no expectation but 100-continue can be met");
    /// The head is longer, or has more fields, than the gate accepts.
    pub const HEAD_TOO_LARGE: Self =
        refusal(431, "headers_too_large", "the request head is too large");
    /// The file that an answer names cannot be read.
    pub const NO_FILE: Self = refusal(500, "internal", "the answer could not be read");
    /// The request was lost on its way to the handler.
    pub const BAD_ANSWER: Self =
        refusal(502, "bad_gateway", "the request was not answered properly");
    /// Nobody listens behind the gate, for example while the server stops.
    pub const NO_ANSWER: Self = refusal(503, "unavailable", "the server cannot answer right now");
    /// Every slot is taken by a client that may keep it.
    pub const FULL: Self = refusal(503, "too_many_connections", "too many connections");
    /// The handler took too long.
    pub const NO_ANSWER_IN_TIME: Self =
        refusal(504, "gateway_timeout", "the request took too long to answer");
}

impl From<Refusal> for Answer {
    fn from(refusal: Refusal) -> Self {
        let mut answer = Self::error(refusal.status, refusal.code, refusal.message, None);
        if refusal == Refusal::METHOD {
            answer.header("Allow", "GET, HEAD, POST, PUT, PATCH, DELETE");
        }
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_whole_json_and_says_that_it_closes() {
        let whole = |refusal: Refusal, to_head, secure| {
            let answer = Answer::from(refusal).whole(to_head, secure, false).unwrap();
            String::from_utf8(answer).unwrap()
        };
        let text = whole(Refusal::METHOD, false, true);
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
        let head = whole(Refusal::TOO_LARGE, true, false);
        assert!(head.ends_with("\r\n\r\n") && !head.contains("Strict"), "{head}");
    }
}
