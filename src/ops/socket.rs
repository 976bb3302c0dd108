//! Asks the running server over the socket inside the data directory.
//!
//! Only who may open the data directory gets here, so an operator whose address
//! is locked out still finds a way in.

use super::OpsError;
use crate::model::Secret;
use serde_json::Value;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// A server that is alive answers these small questions at once.
const PATIENCE: Duration = Duration::from_secs(5);
/// Far above any answer to these questions.
const MAX_ANSWER: u64 = 8 * 1024 * 1024;

/// Sends one request and reads its answer; an error status becomes its sentence.
pub(super) fn ask(
    path: &Path,
    method: &str,
    target: &str,
    token: Option<&Secret>,
) -> Result<Value, OpsError> {
    let answer = exchange(path, method, target, token).map_err(|e| {
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
) -> std::io::Result<Vec<u8>> {
    let mut stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let proof = token.map(|t| format!("Authorization: Bearer {}\r\n", t.expose()));
    let request = format!(
        "{method} {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
         Content-Length: 0\r\n{}\r\n",
        proof.unwrap_or_default()
    );
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER).read_to_end(&mut answer)?;
    Ok(answer)
}
