//! `server install` and `server uninstall`: what the owner is asked and told.

use super::token;
use super::update::{outlive_the_terminal, refuse_odd_data};
use crate::config::{Config, Settings};
use crate::model::{AnyError, Secret};
use crate::root::{self, Say};
use std::io::{self, IsTerminal as _, Write as _};

/// Installs the server on this machine; the settings in force and the token, unless it was only
/// to say what it would do.
///
/// # Errors
/// As [`root::install`], and when there is no token to print.
pub fn install(is_dry_run: bool, say: &mut Say<'_>) -> Result<Option<(Config, Secret)>, AnyError> {
    let settings = Settings::of_the_service()?;
    outlive_the_terminal()?;
    refuse_odd_data(&settings)?;
    root::install(&settings, is_dry_run, say)?;
    if is_dry_run {
        return Ok(None);
    }
    Ok(Some((settings.config()?, token::of(&settings, false)?)))
}

/// Removes the server from this machine; its data too, when `purge` is given and the owner
/// says yes, or has said so (`is_sure`).
///
/// # Errors
/// When the owner does not say yes, or as [`root::uninstall`].
pub fn uninstall(purge: bool, is_sure: bool, say: &mut Say<'_>) -> Result<(), AnyError> {
    let what = "This deletes /opt/better-paas with every app and its data, and the settings.";
    if purge && !is_sure {
        if !io::stdin().is_terminal() {
            return Err(format!("{what} Nothing was done; add --yes if you mean that").into());
        }
        write!(io::stderr(), "{what} Write yes to go on: ")?;
        let mut answer = String::new();
        io::stdin().read_line(&mut answer)?;
        if answer.trim() != "yes" {
            return Err("nothing was done".into());
        }
    }
    root::uninstall(purge, say)
}
