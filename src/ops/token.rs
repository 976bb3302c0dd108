//! `server token`: print the admin token in force, or make a new one (P5).

use super::{audit, existing};
use crate::auth::token;
use crate::config::Settings;
use crate::model::{AnyError, Secret, failed};

const PINNED: &str = "the running server's token is pinned by ADMIN_TOKEN in its environment; \
     look where that is set, such as its service file";

/// The token in force, after making a new one when `rotate` is given. A running
/// server honours a new one at once.
///
/// # Errors
/// When the token is pinned by the environment and should be rotated, or there
/// is none yet.
pub fn run(rotate: bool) -> Result<Secret, AnyError> {
    of(&Settings::of_this_program()?, rotate)
}

/// The same for a server with these settings.
pub(super) fn of(settings: &Settings, rotate: bool) -> Result<Secret, AnyError> {
    let (config, data) = existing(settings)?;
    let pinned_there = data.holder().is_some_and(|holder| holder.pinned);
    if rotate {
        if config.admin_token.is_some() || pinned_there {
            return Err("the token is pinned by ADMIN_TOKEN and cannot be rotated here; \
                        change ADMIN_TOKEN where it is set and restart the server, or remove it"
                .into());
        }
        let token = token::rotate_file(&data).map_err(failed("no new token was made"))?;
        audit::note(&data, "token --rotate").map_err(failed(
            "a new token is in force, which 'server token' prints, but not in the audit log",
        ))?;
        return Ok(token);
    }
    if let Some(token) = config.admin_token {
        return Ok(token);
    }
    if pinned_there {
        return Err(PINNED.into());
    }
    let token = token::read(&data).map_err(|e| {
        format!("the token could not be read: {e}; 'server token --rotate' makes a new one")
    })?;
    token.ok_or_else(|| {
        "there is no token yet; start the server once, or make one with 'server token --rotate'"
            .into()
    })
}
