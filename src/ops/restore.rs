//! `server restore`: puts a backup in the place of what is there.

use super::update::outlive_the_terminal;
use super::{INSTALLED_KEY, existing, installed_key, read_key};
use crate::backup::restore::restore;
use crate::config::Settings;
use crate::data_dir::DataDir;
use crate::model::{AnyError, Utc, failed};
use crate::vault::key::{self, Key};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

/// Restores a backup while no server runs; the line that says what it is of.
///
/// # Errors
/// When nothing was replaced.
pub fn run(file: &Path, key_file: Option<PathBuf>) -> Result<String, AnyError> {
    outlive_the_terminal()?;
    let settings = Settings::of_this_program()?;
    let backup = File::open(file).map_err(failed(format!("{} cannot be read", file.display())))?;
    let installed = installed_key();
    let given = key_file.as_deref().map(read_key).transpose()?;
    let config = settings.config()?;
    // What the server will start with, which no restore changes.
    let pinned = match &config.secret_key {
        Some(text) => Key::parse(text.expose()).map(|key| (key, key::VARIABLE)),
        None => match installed {
            Some(file) => Some((read_key(file)?, INSTALLED_KEY)),
            None => None,
        },
    };
    if let (Some(given), Some((pinned, source))) = (&given, &pinned)
        && given.id() != pinned.id()
    {
        return Err(format!(
            "the key in the file is {}, but the server gets {} by {source}; put the right one \
             there first",
            given.id(),
            pinned.id()
        )
        .into());
    }
    let is_new = given.is_some() && pinned.is_none() && config.secret_key.is_none();
    let key = given.or(pinned.map(|(key, _)| key));
    if !config.data_dir.exists() {
        DataDir::open(&config.data_dir)?;
    }
    let (config, data) = existing(&settings)?;
    if data.holder().is_some() {
        return Err("the server runs; stop it, restore, and start it again (systemctl stop \
                    better-paas.socket better-paas.service; in the end: systemctl start)"
            .into());
    }
    let _lock = data.lock(config.admin_token.is_some())?;
    let key = match key {
        Some(key) => key,
        None => {
            let found = key::load(config.secret_key.as_ref(), None, &data, false);
            found.map_err(failed("name the file of its key with --key-file"))?.0
        }
    };
    let (header, before) = restore(&data, backup.into(), (&key, is_new))?;
    let made = Duration::from_millis(u64::try_from(header.created_at).unwrap_or(0));
    Ok(format!(
        "this is the server of {} again; what was there before is in {}. Its apps are deployed \
         when it starts",
        Utc::at(UNIX_EPOCH + made),
        before.display()
    ))
}
