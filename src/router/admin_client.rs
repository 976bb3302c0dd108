//! What the router is asked over its Unix sockets.

use crate::http_client::{Answer, Patience, connect};
use crate::proc::Cancel;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

/// Bytes of an answer that are read; the router's configuration has a hundredth of it.
const MOST: usize = 4 << 20;

/// Asks once, in the old way that ends with the connection; the answer's status, and its body,
/// lossy.
///
/// # Errors
/// When there is no answer in time or before `stop` is pulled, or one that is not HTTP.
pub fn ask(
    socket: &Path,
    request: &str,
    host: &str,
    body: &str,
    limit: Duration,
    stop: &Cancel,
) -> io::Result<(u16, String)> {
    let patience = Patience { until: Instant::now() + limit, stop: &[stop.as_fd()] };
    let stream = connect(socket, &patience)?;
    let request = format!(
        "{request} HTTP/1.0\r\nHost: {host}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let answer = Answer::to(stream, request.as_bytes(), patience)?;
    let (status, body) = (answer.status, answer.body(MOST)?);
    Ok((status, String::from_utf8_lossy(&body).into_owned()))
}
