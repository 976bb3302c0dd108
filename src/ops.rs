//! The operator's commands, one file each, for an owner with a shell on the machine.

pub mod audit;
pub mod backup;
pub mod config;
pub mod deploy;
pub mod import;
pub mod install;
pub mod line;
pub mod lockouts;
pub mod protocol;
pub mod rekey;
pub mod restore;
pub mod run;
mod socket;
pub mod token;
pub mod update;

use crate::config::{Config, Settings};
use crate::data_dir::{DataDir, DataDirError, user};
use crate::model::AnyError;
use crate::root::privileges;

/// The configuration and the data directory, which must be there already: a
/// command never makes one. From here on root is the directory's owner.
fn existing(settings: &Settings) -> Result<(Config, DataDir), AnyError> {
    let config = settings.config()?;
    let path = std::path::absolute(&config.data_dir).unwrap_or_else(|_| config.data_dir.clone());
    // What may not be looked at is there; opening it says what is wrong.
    if matches!(path.try_exists(), Ok(false)) {
        return Err(format!(
            "there is no data directory at {}; run this in the directory in which the server \
             runs (an installed one: sudo better-paas …), or name the server's data: \
             DATA_DIR=/srv/paas server … (at its start the server prints the line for 'token')",
            path.display()
        )
        .into());
    }
    privileges::become_owner(&config.data_dir)?;
    match DataDir::open(&config.data_dir) {
        Ok(data) => Ok((config, data)),
        // A command is not to give the data another owner, which would stop the server.
        Err(DataDirError::Foreign { path, owner, .. }) => Err(format!(
            "{} belongs to user {}; run this as that user: {} …",
            path.display(),
            user::name(owner),
            line::as_user(owner)
        )
        .into()),
        Err(error) => Err(error.into()),
    }
}
