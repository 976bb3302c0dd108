//! Asks the running server over the socket inside the data directory.
//!
//! Only who may open the data directory gets here, so an operator whose address
//! is locked out still finds a way in.

use super::OpsError;
use crate::model::Secret;
use serde_json::Value;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// A server that is alive answers these small questions at once. It has this long for
/// its whole answer, however it sends it.
const PATIENCE: Duration = Duration::from_secs(5);
/// Far above any answer to these questions.
const MAX_ANSWER: usize = 8 * 1024 * 1024;

/// Sends one request and reads its answer; an error status becomes its sentence.
pub(super) fn ask(
    path: &Path,
    method: &str,
    target: &str,
    token: Option<&Secret>,
) -> Result<Value, OpsError> {
    let until = Instant::now() + PATIENCE;
    let answer = exchange(path, method, target, token, until).map_err(|e| {
        OpsError::sentence(format!("the running server does not answer ({e}); restart it"))
    })?;
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut head = httparse::Response::new(&mut headers);
    let length = match head.parse(&answer) {
        Ok(httparse::Status::Complete(length)) => length,
        _ => {
            return Err(OpsError::sentence("the running server gave no proper answer; restart it"));
        }
    };
    let body: Value = serde_json::from_slice(&answer[length..]).unwrap_or(Value::Null);
    match head.code {
        Some(200..=299) => Ok(body),
        Some(401) => Err(OpsError::sentence(
            "the running server has another token; set ADMIN_TOKEN here to the same value as there",
        )),
        _ => {
            let text = |name, or: &str| body["error"][name].as_str().unwrap_or(or).to_owned();
            let message = text("message", "the running server refused");
            Err(OpsError::Refused { code: text("code", ""), message })
        }
    }
}

fn exchange(
    path: &Path,
    method: &str,
    target: &str,
    token: Option<&Secret>,
    until: Instant,
) -> io::Result<Vec<u8>> {
    let mut stream = UnixStream::connect(path)?;
    // One small write, which the socket takes as a whole.
    stream.set_write_timeout(Some(PATIENCE))?;
    let proof = token.map(|t| format!("Authorization: Bearer {}\r\n", t.expose()));
    let request = format!(
        "{method} {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
         Content-Length: 0\r\n{}\r\n",
        proof.unwrap_or_default()
    );
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    let mut piece = [0; 4096];
    while answer.len() < MAX_ANSWER {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut piece) {
            Ok(0) => break,
            Ok(length) => answer.extend_from_slice(&piece[..length]),
            Err(error)
                if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    #[test]
    fn a_server_that_sends_drop_by_drop_is_given_up_on_as_well() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            // Until the other end has gone.
            while stream.write_all(b"x").is_ok() {
                std::thread::sleep(Duration::from_millis(10));
            }
        });
        let until = Instant::now() + Duration::from_millis(200);
        let error = exchange(&path, "GET", "/", None, until).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        server.join().unwrap();
    }
}
