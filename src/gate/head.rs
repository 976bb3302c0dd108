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
    let seen = survey(fields)?;
    check_target(method, target)?;
    check_host(seen.hosts, seen.host, http11)?;
    if seen.transfer_encoding {
        return Err(Refusal::NO_LENGTH);
    }
    let length = content_length(seen.lengths, seen.length, max_body)?;
    if seen.foreign_expectation {
        return Err(Refusal::EXPECTATION);
    }
    let websocket = http11 && method == "GET" && seen.names_upgrade && seen.names_websocket;
    if websocket && length > 0 {
        return Err(Refusal::UPGRADE_BODY);
    }
    Ok(Head {
        method,
        target,
        fields,
        length,
        http11,
        keep_alive: !seen.names_close && (http11 || seen.names_keep_alive),
        // An HTTP/1.0 client cannot read the interim answer: RFC 9110, 10.1.1.
        expects_continue: http11 && seen.expects_continue,
        websocket,
    })
}

/// What a field means to the gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Host,
    ContentLength,
    TransferEncoding,
    Connection,
    Authorization,
    Expect,
    Upgrade,
    Cookie,
    ForwardedFor,
    ForwardedProto,
    Other,
}

/// What a field means, by its name.
pub(super) fn kind(name: &str) -> Kind {
    let is = |known: &str| name.eq_ignore_ascii_case(known);
    // The length first: nearly every field is decided by it alone.
    match name.len() {
        4 if is("host") => Kind::Host,
        6 if is("expect") => Kind::Expect,
        6 if is("cookie") => Kind::Cookie,
        7 if is("upgrade") => Kind::Upgrade,
        10 if is("connection") => Kind::Connection,
        13 if is("authorization") => Kind::Authorization,
        14 if is("content-length") => Kind::ContentLength,
        15 if is("x-forwarded-for") => Kind::ForwardedFor,
        17 if is("transfer-encoding") => Kind::TransferEncoding,
        17 if is("x-forwarded-proto") => Kind::ForwardedProto,
        _ => Kind::Other,
    }
}

/// The names in all `Connection` fields, trimmed.
pub(super) fn connection_names<'h>(
    fields: &'h [Header<'_>],
) -> impl Iterator<Item = &'h [u8]> + use<'h> {
    fields.iter().filter(|f| kind(f.name) == Kind::Connection).flat_map(|f| names(f.value))
}

/// The members of a list, trimmed, without empty ones (RFC 9110, 5.6.1).
fn names(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&b| b == b',').map(<[u8]>::trim_ascii).filter(|n| !n.is_empty())
}

/// What one look at all the fields found.
#[derive(Default)]
#[allow(clippy::struct_excessive_bools, reason = "each is a plain yes or no about the head")]
struct Survey<'b> {
    hosts: usize,
    host: &'b [u8],
    lengths: usize,
    length: &'b [u8],
    transfer_encoding: bool,
    expects_continue: bool,
    foreign_expectation: bool,
    names_close: bool,
    names_keep_alive: bool,
    names_upgrade: bool,
    names_websocket: bool,
}

fn survey<'b>(fields: &[Header<'b>]) -> Result<Survey<'b>, Refusal> {
    let mut seen = Survey::default();
    let (mut connection_names, mut credentials) = (0, 0);
    for field in fields {
        let kind = kind(field.name);
        // tiny_http knows ASCII only. Cookies are left out later: whatever else runs
        // on this host name may set them, and must not be able to lock the owner out.
        if kind != Kind::Cookie && !field.value.is_ascii() {
            return Err(Refusal::MALFORMED);
        }
        match kind {
            Kind::Host => {
                seen.hosts += 1;
                seen.host = field.value;
            }
            Kind::ContentLength => {
                seen.lengths += 1;
                seen.length = field.value;
            }
            Kind::Authorization => credentials += 1,
            Kind::TransferEncoding => seen.transfer_encoding = true,
            Kind::Expect if field.value.eq_ignore_ascii_case(b"100-continue") => {
                seen.expects_continue = true;
            }
            Kind::Expect => seen.foreign_expectation = true,
            Kind::Upgrade => {
                seen.names_websocket |=
                    names(field.value).any(|n| n.eq_ignore_ascii_case(b"websocket"));
            }
            Kind::Connection => {
                for name in names(field.value) {
                    connection_names += 1;
                    seen.names_close |= name.eq_ignore_ascii_case(b"close");
                    seen.names_keep_alive |= name.eq_ignore_ascii_case(b"keep-alive");
                    seen.names_upgrade |= name.eq_ignore_ascii_case(b"upgrade");
                }
            }
            _ => {}
        }
    }
    if connection_names > MAX_CONNECTION_NAMES {
        return Err(Refusal::BAD_CONNECTION);
    }
    if credentials > 1 {
        return Err(Refusal::TWO_CREDENTIALS);
    }
    Ok(seen)
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
fn check_host(hosts: usize, host: &[u8], http11: bool) -> Result<(), Refusal> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~%!$&'()*+;=:[]".contains(&b);
    match hosts {
        0 if !http11 => Ok(()),
        1 if !host.is_empty() && host.iter().all(|&b| plain(b)) => Ok(()),
        _ => Err(Refusal::BAD_HOST),
    }
}

fn content_length(count: usize, text: &[u8], most: usize) -> Result<usize, Refusal> {
    if count == 0 {
        return Ok(0);
    }
    let plain = count == 1
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
