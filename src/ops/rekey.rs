//! `server rekey`: another encryption key (P19), and what to do when it is lost.

use super::protocol::{Answer, Request, read_line};
use super::{INSTALLED_KEY, existing, installed_key, key_of, read_key, run::connect};
use crate::config::Settings;
use crate::model::{AnyError, NEWEST_COPY, failed};
use crate::proc::descriptors;
use crate::store::{self, Store};
use crate::vault::Vault;
use crate::vault::key::{FILE, Key};
use std::fs::File;
use std::os::fd::AsFd as _;
use std::path::PathBuf;

/// Has the running server take the key in a file, or make one; what has changed.
///
/// # Errors
/// When no server runs or it refuses; the key is then the one it was.
pub fn run(key_file: Option<PathBuf>) -> Result<String, AnyError> {
    // Before this program gives up root, whose file it may be.
    let file = key_file.map(File::open).transpose().map_err(failed("the key cannot be read"))?;
    let (socket, data) = connect()?;
    let old = Key::saved(&data, FILE)?.map_or_else(String::new, |key| key.own_file());
    let line = serde_json::to_string(&Request::Rekey)? + "\n";
    let files: Vec<_> = file.iter().map(|file| file.as_fd()).collect();
    descriptors::send(&socket, line.as_bytes(), &files)?;
    let (answer, _) = read_line(&socket, || Ok(true)).map_err(
        |_| "the server has ended; at its next start its log says which key is in force",
    )?;
    serde_json::from_slice::<Answer>(&answer)??;
    Ok(format!(
        "every value is encrypted with the new key now, which is in {}: keep a copy elsewhere. \
         Backups made until now open with the old one alone, which is in {}",
        data.join(FILE).display(),
        data.join(&old).display()
    ))
}

/// Gives up the values that no key opens any more; with `yes` for good.
///
/// # Errors
/// When a server runs, the key is there after all, and without `yes`: the sentence says which
/// values those are.
pub fn mark_lost(yes: bool) -> Result<String, AnyError> {
    let installed = installed_key().map(read_key).transpose()?;
    let (config, data) = existing(&Settings::of_this_program()?)?;
    let _lock = data.lock(config.admin_token.is_some())?;
    let database = data.join(store::DATABASE);
    // What else is wrong with it is said when it is opened.
    let wanted = store::wanted_key(&database).unwrap_or_default();
    let is_wanted = |key: &Key| key.id() == wanted;
    let kept = match &installed {
        Some(key) if is_wanted(key) => Some(INSTALLED_KEY.into()),
        _ => Key::find(&data, &wanted).map(|(_, file)| data.join(&file)),
    };
    let found = key_of(&config, &data, installed.as_ref(), yes && kept.is_none());
    if let Some(file) = kept
        && !found.as_ref().is_ok_and(|(key, _)| is_wanted(key))
    {
        return Err(format!(
            "the key that the database wants, {wanted}, is in {}, so nothing is lost: put it where \
             the server looks for it, take any other one away there, and start it",
            file.display()
        )
        .into());
    }
    let (key, source) = match found {
        // One is made only for good.
        Err(_) if !yes && !data.join(FILE).exists() => (Key::random()?, "none".to_owned()),
        found => found?,
    };
    let is_right = is_wanted(&key);
    let store = Store::open_unproved(&database, Vault::new(key))?;
    if is_right && store.mark_lost(false)?.is_empty() {
        return Ok("the key that is here opens everything: nothing is lost".to_owned());
    }
    if yes {
        store::keep(&database)?;
    }
    let lost = store.mark_lost(yes)?;
    let lost = if lost.is_empty() { "none".to_owned() } else { lost.join("\n  ") };
    if yes {
        let id = store.key_id();
        return Ok(format!(
            "key {id} is in force. Lost, to be entered anew:\n  {lost}\nThe database as it was is \
             in {}, should the key be found",
            data.join(NEWEST_COPY).display()
        ));
    }
    Err(format!(
        "with the key that is here (from {source}) these values do not open:\n  {lost}\nNothing was \
         changed. If the right key is anywhere, put it back. If not, add --yes: these values are \
         lost then, the dashboard asks for them, and all else goes on"
    )
    .into())
}
