//! `server audit`: the newest rows of the audit log, and whether its chain is whole (P31).

use super::existing;
use crate::config::Settings;
use crate::data_dir::DataDir;
use crate::model::{AnyError, NEWEST_COPY, Utc};
use crate::store::{self, Act, Store};
use crate::vault::Vault;
use crate::vault::key::Key;
use serde_json::Value;
use std::time::{Duration, UNIX_EPOCH};

/// Rows that are shown.
const SHOWN: u32 = 50;

/// The newest rows, the oldest of them first, and what the chain says: an error when it is not
/// whole, or does not hold the `head` that was kept elsewhere. `tell` gets each line.
///
/// # Errors
/// That one, and when there is no database of this version.
pub fn run(head: Option<&str>, tell: &mut dyn FnMut(&str)) -> Result<(), AnyError> {
    let (_, data) = existing(&Settings::of_this_program()?)?;
    let store = log_of(&data)?;
    store.audit_rows(None, SHOWN)?.iter().rev().for_each(|row| tell(&line(row)));
    if let Some(wrong) = store.verify_audit()? {
        return Err(format!("the audit log was tampered with: {wrong}").into());
    }
    match head {
        Some(head) if !store.audit_holds(head)? => {
            return Err("the chain is whole, but this head is not in it: rows were removed from \
                        its end, all of it was written anew, or it was pruned since"
                .into());
        }
        Some(_) => tell("the chain is whole, and this head is in it"),
        None => tell(&format!("the chain is whole; its head is {}", store.audit_head()?)),
    }
    Ok(())
}

/// Begins a new chain where the one that is there is not whole; the database as it was is kept.
///
/// # Errors
/// When the chain is whole, or the new one could not be begun.
pub fn begin_anew() -> Result<String, AnyError> {
    let (_, data) = existing(&Settings::of_this_program()?)?;
    let store = log_of(&data)?;
    let wrong = store.verify_audit()?.ok_or("the chain is whole; nothing was changed")?;
    store::keep(&data.join(store::DATABASE))?;
    store.begin_audit_anew(&wrong)?;
    let kept = data.join(NEWEST_COPY);
    Ok(format!("a new chain begins. The database with the old one is in {}", kept.display()))
}

/// Puts down what a command has done without the server, which may run or not. Before the first
/// start there is nowhere to.
///
/// # Errors
/// When it could not be written; what was done is done.
pub(super) fn note(data: &DataDir, act: &str) -> Result<(), AnyError> {
    if data.join(store::DATABASE).exists() {
        log_of(data)?.append_audit(&Act::new("shell", act))?;
    }
    Ok(())
}

/// The database, of which nothing is read that a key would be needed for.
fn log_of(data: &DataDir) -> Result<Store, AnyError> {
    Ok(Store::open_unproved(&data.join(store::DATABASE), Vault::new(Key::random()?))?)
}

fn line(row: &Value) -> String {
    let text = |name: &str| row[name].as_str().unwrap_or_default();
    let at = Duration::from_millis(row["doneAt"].as_u64().unwrap_or_default());
    let (at, id) = (Utc::at(UNIX_EPOCH + at), &row["id"]);
    let (who, client, app) = (text("who"), text("client"), text("appName"));
    format!("{id:>6} {at} {who:<7} {client:<15} {app:<15} {}: {}", text("act"), text("outcome"))
}
