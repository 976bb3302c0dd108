//! Asks the running server over the socket inside the data directory.
//!
//! Only who may open the data directory gets here, so an operator whose address
//! is locked out still finds a way in.

use super::OpsError;
use crate::http_client::{Answer, Patience, connect};
use crate::model::Secret;
use serde_json::Value;
use std::io;
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
    let proof = token.map(|t| format!("Authorization: Bearer {}\r\n", t.expose()));
    let request = format!(
        "{method} {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
         Content-Length: 0\r\n{}\r\n",
        proof.unwrap_or_default()
    );
    let exchange = || {
        let patience = Patience { until: Instant::now() + PATIENCE, stop: &[] };
        let answer = Answer::to(connect(path, &patience)?, request.as_bytes(), patience)?;
        Ok((answer.status, answer.body(MAX_ANSWER)?))
    };
    let (status, body) = exchange().map_err(|e: io::Error| {
        OpsError::sentence(format!("the running server does not answer ({e}); restart it"))
    })?;
    let body: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
    match status {
        200..=299 => Ok(body),
        401 => Err(OpsError::sentence(
            "the running server has another token; set ADMIN_TOKEN here to the same value as there",
        )),
        _ => {
            let text = |name, or: &str| body["error"][name].as_str().unwrap_or(or).to_owned();
            let message = text("message", "the running server refused");
            Err(OpsError::Refused { code: text("code", ""), message })
        }
    }
}
