//! The request head: what may pass.
//!
//! Strict on purpose. What two readers could understand differently (RFC 9112,
//! 11.2) is refused here, so that nothing behind the gate ever sees it.

use super::refusal::Refusal;
use httparse::{EMPTY_HEADER, Header, Status};

/// Bytes in a head. Browsers stay under 4 KiB; 16 KiB leaves room for a proxy's additions.
pub const MAX_HEAD: usize = 16 * 1024;

/// Header fields in a head. Browsers send about twenty.
pub const MAX_FIELDS: usize = 64;

/// Bytes in the request target: what RFC 9110, 4.1 wants at least.
pub const MAX_TARGET: usize = 8 * 1024;

/// Digits in a `Content-Length`: any number of 19 digits fits 64 bits.
const MAX_LENGTH_DIGITS: usize = 19;

/// Names in all `Connection` fields together; an honest client writes one or two.
/// Bounded because each is compared with each field of the head.
const MAX_CONNECTION_NAMES: usize = 16;

/// Room for a head's fields, on the caller's stack.
pub type Fields<'b> = [Header<'b>; MAX_FIELDS];

/// An empty [`Fields`].
pub const NO_FIELDS: Fields<'static> = [EMPTY_HEADER; MAX_FIELDS];

/// Looks for the end of a head that arrives in pieces, at each byte once.
#[derive(Debug, Default)]
pub struct Scan {
    seen: usize,
    line: usize,
    lines: usize,
}

impl Scan {
    /// Looks at the bytes that came since the last call; `bytes` is everything
    /// from the start of the head. Gives the head's length once it is whole.
    ///
    /// # Errors
    /// A [`Refusal`] as soon as no continuation could make this a head.
    pub fn advance(&mut self, bytes: &[u8]) -> Result<Option<usize>, Refusal> {
        let mut before = if self.seen == 0 { 0 } else { bytes[self.seen - 1] };
        for (at, &byte) in bytes.iter().enumerate().skip(self.seen) {
            if byte < b' ' || byte == 0x7f || before == b'\r' {
                match byte {
                    b'\n' if before == b'\r' => {
                        // RFC 9112, 2.2: one empty line before a request is forgiven.
                        if at == self.line + 1 && self.lines > 0 {
                            return if at < MAX_HEAD {
                                Ok(Some(at + 1))
                            } else {
                                Err(Refusal::HEAD_TOO_LARGE)
                            };
                        }
                        self.line = at + 1;
                        self.lines += 1;
                    }
                    b'\r' | b'\t' if before != b'\r' => {}
                    _ => return Err(Refusal::MALFORMED),
                }
            }
            before = byte;
        }
        self.seen = bytes.len();
        // The method and the version are the other parts of the first line.
        if self.lines == 0 && bytes.len() > MAX_TARGET + 64 {
            return Err(Refusal::TARGET_TOO_LONG);
        }
        if bytes.len() >= MAX_HEAD || self.lines > MAX_FIELDS + 1 {
            return Err(Refusal::HEAD_TOO_LARGE);
        }
        Ok(None)
    }
}

/// A head that was judged and may pass.
#[derive(Debug)]
pub struct Head<'h, 'b> {
    /// The method, any token.
    pub method: &'b str,
    /// The target in origin form: visible ASCII that begins with `/`.
    pub target: &'b str,
    /// The fields as they came.
    pub fields: &'h [Header<'b>],
    /// Bytes of body that follow.
    pub length: usize,
    /// Whether the client speaks HTTP/1.1, else 1.0.
    pub http11: bool,
    /// Whether the connection stays open after the answer (RFC 9112, 9.3).
    pub keep_alive: bool,
    /// Whether the client waits for `100 Continue` before it sends the body.
    pub expects_continue: bool,
    /// Whether this is a WebSocket handshake (RFC 6455, 4.1).
    pub websocket: bool,
}

/// Judges a whole head: exactly the bytes that [`Scan`] found, which has seen to
/// it that every line ends with CRLF.
///
/// # Errors
/// The [`Refusal`] that the client shall get.
pub fn judge<'h, 'b>(
    bytes: &'b [u8],
    room: &'h mut Fields<'b>,
    max_body: usize,
) -> Result<Head<'h, 'b>, Refusal> {
    let mut request = httparse::Request::new(room);
    match request.parse(bytes) {
        Ok(Status::Complete(length)) if length == bytes.len() => {}
        Err(httparse::Error::TooManyHeaders) => return Err(Refusal::HEAD_TOO_LARGE),
        _ => return Err(Refusal::MALFORMED),
    }
    let (Some(method), Some(target), Some(version)) =
        (request.method, request.path, request.version)
    else {
        return Err(Refusal::MALFORMED);
    };
    let http11 = version == 1;
    let fields: &'h [Header<'b>] = request.headers;
    // tiny_http knows ASCII only. Cookies are left out later: whatever else runs
    // on this host name may set them, and must not be able to lock the owner out.
    let is_foreign = |f: &Header<'_>| !f.value.is_ascii() && !f.name.eq_ignore_ascii_case("cookie");
    if fields.iter().any(is_foreign) {
        return Err(Refusal::MALFORMED);
    }
    if members(fields, "connection").count() > MAX_CONNECTION_NAMES {
        return Err(Refusal::BAD_CONNECTION);
    }
    if values(fields, "authorization").count() > 1 {
        return Err(Refusal::TWO_CREDENTIALS);
    }
    check_target(method, target)?;
    check_host(values(fields, "host"), http11)?;
    if values(fields, "transfer-encoding").count() > 0 {
        return Err(Refusal::NO_LENGTH);
    }
    let length = content_length(values(fields, "content-length"), max_body)?;
    if !values(fields, "expect").all(|e| e.eq_ignore_ascii_case(b"100-continue")) {
        return Err(Refusal::EXPECTATION);
    }
    let names = |list: &str, member: &[u8]| {
        members(fields, list).any(|name| name.eq_ignore_ascii_case(member))
    };
    let websocket = http11
        && method == "GET"
        && names("connection", b"upgrade")
        && names("upgrade", b"websocket");
    if websocket && length > 0 {
        return Err(Refusal::UPGRADE_BODY);
    }
    Ok(Head {
        method,
        target,
        fields,
        length,
        http11,
        keep_alive: !names("connection", b"close")
            && (http11 || names("connection", b"keep-alive")),
        // An HTTP/1.0 client cannot read the interim answer: RFC 9110, 10.1.1.
        expects_continue: http11 && values(fields, "expect").count() > 0,
        websocket,
    })
}

/// The values of all fields with this name, in their order.
pub(super) fn values<'b>(
    fields: &[Header<'b>],
    name: &str,
) -> impl DoubleEndedIterator<Item = &'b [u8]> {
    fields.iter().filter(move |f| f.name.eq_ignore_ascii_case(name)).map(|f| f.value)
}

/// The members of all lists with this name, trimmed, without empty ones (RFC 9110, 5.6.1).
pub(super) fn members<'b>(fields: &[Header<'b>], name: &str) -> impl Iterator<Item = &'b [u8]> {
    let members = values(fields, name).flat_map(|list| list.split(|&b| b == b','));
    members.map(<[u8]>::trim_ascii).filter(|member| !member.is_empty())
}

fn check_target(method: &str, target: &str) -> Result<(), Refusal> {
    if method == "TRACE" || method == "CONNECT" {
        return Err(Refusal::METHOD);
    }
    if target.len() > MAX_TARGET {
        return Err(Refusal::TARGET_TOO_LONG);
    }
    // Absolute form and `*` do not begin with a slash; a fragment is never sent.
    if !target.starts_with('/') || !target.bytes().all(|b| b.is_ascii_graphic() && b != b'#') {
        return Err(Refusal::BAD_TARGET);
    }
    Ok(())
}

/// RFC 9112, 3.2; the characters are those of RFC 3986, 3.2.2, without the comma,
/// with which some join two hosts to one.
fn check_host<'b>(mut hosts: impl Iterator<Item = &'b [u8]>, http11: bool) -> Result<(), Refusal> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~%!$&'()*+;=:[]".contains(&b);
    match (hosts.next(), hosts.next()) {
        (None, _) if !http11 => Ok(()),
        (Some(host), None) if !host.is_empty() && host.iter().all(|&b| plain(b)) => Ok(()),
        _ => Err(Refusal::BAD_HOST),
    }
}

fn content_length<'b>(
    mut lengths: impl Iterator<Item = &'b [u8]>,
    most: usize,
) -> Result<usize, Refusal> {
    let Some(text) = lengths.next() else { return Ok(0) };
    let plain = lengths.next().is_none()
        && (1..=MAX_LENGTH_DIGITS).contains(&text.len())
        && text.iter().all(u8::is_ascii_digit);
    if !plain {
        return Err(Refusal::BAD_LENGTH);
    }
    let length = text.iter().fold(0_u64, |sum, d| sum * 10 + u64::from(d - b'0'));
    usize::try_from(length).ok().filter(|&l| l <= most).ok_or(Refusal::TOO_LARGE)
}

#[cfg(test)]
mod tests;
