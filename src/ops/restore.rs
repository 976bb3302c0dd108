//! `server restore`: puts a backup in the place of what is there.

use super::existing;
use crate::backup::restore::restore;
use crate::config::{Settings, runs_installed};
use crate::data_dir::{DataDir, read_secret_at};
use crate::model::{AnyError, Utc, failed};
use crate::vault::key::{self, Key};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

/// The key of an installed server, where it is kept out of the data.
const INSTALLED_KEY: &str = "/etc/better-paas.key";

/// Restores a backup while no server runs; the line that says what it is of.
///
/// # Errors
/// When nothing was replaced.
pub fn run(file: &Path, key_file: Option<PathBuf>) -> Result<String, AnyError> {
    let settings = Settings::of_this_program()?;
    let backup = File::open(file).map_err(failed(format!("{} cannot be read", file.display())))?;
    let installed = Path::new(INSTALLED_KEY);
    let is_given = key_file.as_deref().is_some_and(|file| file != installed);
    let is_there = runs_installed() && installed.exists();
    let key_file = key_file.or_else(|| is_there.then(|| installed.into()));
    let key = key_file.map(|file| read_key(&file)).transpose()?;
    let config = settings.config()?;
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
    let is_new = is_given && config.secret_key.is_none();
    let (header, before) = restore(&data, backup.into(), (&key, is_new))?;
    let made = Duration::from_millis(u64::try_from(header.created_at).unwrap_or(0));
    Ok(format!(
        "this is the server of {} again; what was there before is in {}. Its apps are deployed \
         when it starts",
        Utc::at(UNIX_EPOCH + made),
        before.display()
    ))
}

fn read_key(file: &Path) -> Result<Key, AnyError> {
    let text = read_secret_at(file)?.ok_or("the file of the key is not there")?;
    Key::parse(text.expose()).ok_or_else(|| "the file of the key holds none".into())
}
