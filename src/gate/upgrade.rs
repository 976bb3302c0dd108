//! WebSocket handshakes, which leave the gate here: tiny_http never sees one.

use super::admission::Permit;
use super::client::Source;
use super::head::Head;
use std::io;
use std::net::TcpStream;

/// A WebSocket handshake whose head was judged and found well-formed. Nothing was
/// answered yet: that, and everything after it, is up to the upgrade function.
pub struct Upgrade {
    /// The client's socket: blocking, without a read timeout, with a write timeout
    /// of 10 s without progress. The gate closes it so that the client can read the last
    /// words, unless it does not block any more.
    pub stream: TcpStream,
    /// Bytes that the client sent after its head.
    pub leftover: Vec<u8>,
    /// The target's path, as sent.
    pub path: String,
    /// What follows the `?` in the target, as sent.
    pub query: Option<String>,
    /// The fields in their order, names in lower case; values are visible ASCII,
    /// spaces and tabs.
    pub headers: Vec<(String, Vec<u8>)>,
    /// Where it comes from.
    pub source: Source,
    /// To be called once the client has proved the token. Until then the connection may be
    /// shut down to make room for another one.
    pub prove: Box<dyn Fn() + Send>,
}

impl Upgrade {
    pub(super) fn new(
        head: &Head<'_, '_>,
        leftover: &[u8],
        source: Source,
        permit: &Permit,
    ) -> io::Result<Self> {
        let stream = permit.stream().try_clone()?;
        stream.set_read_timeout(None)?;
        let (path, query) = match head.target.split_once('?') {
            Some((path, query)) => (path, Some(query.to_owned())),
            None => (head.target, None),
        };
        let headers = head
            .fields
            .iter()
            .filter(|f| f.value.is_ascii())
            .map(|f| (f.name.to_ascii_lowercase(), f.value.to_vec()))
            .collect();
        Ok(Self {
            stream,
            leftover: leftover.to_vec(),
            path: path.to_owned(),
            query,
            headers,
            source,
            prove: Box::new(permit.proof()),
        })
    }
}
