//! The operator's commands, one file each, for an owner with a shell on the machine.

pub mod audit;
pub mod backup;
pub mod check;
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

use crate::config::{Config, Settings, runs_installed};
use crate::data_dir::{DataDir, DataDirError, read_secret_at, user};
use crate::model::AnyError;
use crate::root::privileges;
use crate::vault::key::{self, Key};
use std::path::Path;

/// The key of an installed server, where it is kept out of the data.
const INSTALLED_KEY: &str = "/etc/better-paas.key";

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

/// Where the key of the installed server is, if this is it and it is kept out of the data: its
/// unit has it as a credential, and a shell has not. It is root's, so it is read before
/// [`existing`].
fn installed_key() -> Option<&'static Path> {
    let file = Path::new(INSTALLED_KEY);
    (runs_installed() && file.exists()).then_some(file)
}

fn read_key(file: &Path) -> Result<Key, AnyError> {
    let text = read_secret_at(file)?.ok_or("the file of the key is not there")?;
    Key::parse(text.expose()).ok_or_else(|| "the file of the key holds none".into())
}

/// The key that the server would find, as [`key::load`] does, and where it is from.
fn key_of(
    config: &Config,
    data: &DataDir,
    installed: Option<&Key>,
    may_create: bool,
) -> Result<(Key, String), AnyError> {
    let directory = config.credentials_directory.as_deref();
    match installed {
        Some(key) if config.secret_key.is_none() => Ok((key.clone(), INSTALLED_KEY.to_owned())),
        _ => key::load(config.secret_key.as_ref(), directory, data, may_create),
    }
}
