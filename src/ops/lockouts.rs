//! `server lockouts`: who is locked out, and the way to let one try again (P13).

use super::{existing, socket};
use crate::auth::token;
use crate::config::Settings;
use crate::model::{AnyError, Client, unix_millis};
use serde_json::Value;
use std::fmt::Write as _;

/// The lockouts in force, one line each.
///
/// # Errors
/// When no server runs or it does not answer.
pub fn list() -> Result<String, AnyError> {
    let answer = ask("GET", "/api/security/lockouts")?;
    let lockouts = answer["lockouts"].as_array().map_or(&[][..], Vec::as_slice);
    if lockouts.is_empty() {
        return Ok("nobody is locked out".to_owned());
    }
    let now = unix_millis();
    let mut text = format!("{:<28} {:>9} {:>8}", "CLIENT", "BAD TRIES", "SECONDS");
    for lockout in lockouts {
        let client = lockout["client"].as_str().unwrap_or("?");
        let until = lockout["lockedUntilAt"].as_i64().unwrap_or(now);
        let seconds = (until - now).max(0) / 1000 + 1;
        let _ = write!(text, "\n{client:<28} {:>9} {seconds:>8}", lockout["failures"]);
    }
    Ok(text)
}

/// Forgets what was counted against a client.
///
/// # Errors
/// When nothing was counted, no server runs or it does not answer.
pub fn clear(client: Client) -> Result<String, AnyError> {
    let path = format!("/api/security/lockouts/{}", client.to_string().replace('/', "%2F"));
    ask("DELETE", &path)?;
    Ok(format!("{client} may try again"))
}

pub(super) fn ask(method: &str, path: &str) -> Result<Value, AnyError> {
    let (config, data) = existing(&Settings::of_this_program()?)?;
    let holder = data.holder().ok_or(
        "no server runs on this data directory; lockouts live in its memory, so there are none",
    )?;
    // A pinned token need not be known here: the socket is proof enough.
    let token = match config.admin_token {
        Some(token) => Some(token),
        None if holder.pinned => None,
        None => token::read(&data).ok().flatten(),
    };
    socket::ask(&data.join("gate.sock"), method, path, token.as_ref())
}
