//! Asks the running server over the socket inside the data directory.
//!
//! Only who may open the data directory gets here, so an operator whose address
//! is locked out still finds a way in.

use crate::http_client::{self, Patience};
use crate::model::{AnyError, Secret};
use serde_json::Value;
use std::path::Path;
use std::time::{Duration, Instant};

/// A server that is alive answers these small questions at once. It has this long for
/// its whole answer, however it sends it.
const PATIENCE: Duration = Duration::from_secs(5);

/// Sends one request and reads its answer.
///
/// # Errors
/// When there is no answer; and the sentence of one that refuses.
pub(super) fn ask(
    path: &Path,
    method: &str,
    target: &str,
    token: Option<&Secret>,
) -> Result<Value, AnyError> {
    let proof = token.map(|t| format!("Authorization: Bearer {}\r\n", t.expose()));
    let request = format!(
        "{method} {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
         Content-Length: 0\r\n{}\r\n",
        proof.unwrap_or_default()
    );
    let patience = Patience { until: Instant::now() + PATIENCE, stop: &[] };
    let (status, body) = http_client::ask(path, &request, patience)
        .map_err(|e| format!("the running server does not answer ({e}); restart it"))?;
    let body: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
    match status {
        200..=299 => Ok(body),
        401 => Err("the running server has another token; set ADMIN_TOKEN here to the same value \
                    as there"
            .into()),
        _ => Err(body["error"]["message"].as_str().unwrap_or("the running server refused").into()),
    }
}
