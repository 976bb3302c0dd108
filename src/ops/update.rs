//! `server update`, and what it has the old program do with the data (P30).

use super::existing;
use crate::config::Settings;
use crate::model::{AnyError, Update};
use crate::root::{self, Say};
use crate::store::{self, DATABASE};
use nix::sys::signal::{SigSet, Signal};

/// Puts another program in the place of the installed one.
///
/// # Errors
/// As [`root::update`].
pub fn run(update: &Update, say: &mut Say<'_>) -> Result<(), AnyError> {
    let settings = Settings::of_the_service()?;
    outlive_the_terminal()?;
    refuse_odd_data(&settings)?;
    root::update(&settings, update, say)
}

/// The directory becomes a word among others of programs that root runs.
pub(super) fn refuse_odd_data(settings: &Settings) -> Result<(), AnyError> {
    let data = settings.config()?.data_dir;
    if data.to_string_lossy().contains(char::is_whitespace) {
        return Err("DATA_DIR has a space in it; an installed server needs one without".into());
    }
    Ok(())
}

/// A connection that is lost ends no update halfway.
pub(super) fn outlive_the_terminal() -> Result<(), AnyError> {
    Ok(SigSet::from(Signal::SIGHUP).thread_block()?)
}

/// Puts the units of this program in place, which is installed.
///
/// # Errors
/// As [`root::update_units`].
pub fn units(say: &mut Say<'_>) -> Result<(), AnyError> {
    root::update_units(&Settings::of_the_service()?, say)
}

/// Copies the database to where the newest copy is.
///
/// # Errors
/// As [`store::keep`].
pub fn keep() -> Result<(), AnyError> {
    let (_, data) = existing(&Settings::of_this_program()?)?;
    Ok(store::keep(&data.join(DATABASE))?)
}

/// Goes back to the newest copy where a newer program has changed the schema.
///
/// # Errors
/// When a server runs, or as [`store::go_back`].
pub fn go_back() -> Result<(), AnyError> {
    let (config, data) = existing(&Settings::of_this_program()?)?;
    let database = data.join(DATABASE);
    if store::is_newer(&database)? {
        // The installed server may try to start meanwhile, and ends with the reason at once.
        let _lock = data.lock(config.admin_token.is_some())?;
        store::go_back(&database)?;
    }
    Ok(())
}
