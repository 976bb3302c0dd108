//! Encrypts single values of the database, each bound to its place (P14, P16, P17).
//!
//! The vault knows neither the database nor what a value means. It takes a text
//! and the [`Place`] where it will stand, and gives back what may be written
//! there. Whatever does not open is an error that names the place: never an
//! empty value, never a guess.

mod envelope;
pub mod key;
#[cfg(test)]
mod tests;

use crate::model::Secret;
use aes_gcm::{Aes256Gcm, KeyInit};
use envelope::Envelope;
use key::Key;
use std::fmt;

/// What stands in the place of a value that was lost with its key, until it is given again.
pub const LOST: &str = "enc:lost";

/// Encrypts and opens values with one key, which is wiped from memory with it.
#[derive(Clone)]
pub struct Vault {
    cipher: Aes256Gcm,
    key_id: String,
}

/// Where a value stands. All of it is authenticated, so that a ciphertext opens
/// nowhere else (P16).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place<'a> {
    /// The table.
    pub table: &'a str,
    /// The column.
    pub column: &'a str,
    /// The row's identifier.
    pub row: &'a str,
    /// What else it was given for: the origin for a Git token, so that it is
    /// never sent to another host; empty for everything else.
    pub context: &'a str,
}

impl Place<'static> {
    /// Where the store keeps the value that finds a wrong key at start (P18).
    pub const CANARY: Self = Self { table: "meta", column: "value", row: "canary", context: "" };
}

/// How a stored value was protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `enc:v2:`: encrypted and bound to its place.
    V2,
    /// `enc:v1:`: encrypted by an earlier install, bound to nothing.
    V1,
    /// Not encrypted at all.
    Cleartext,
}

/// A value that was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    /// The value.
    pub secret: Secret,
    /// How it stands in the database; anything but [`Form::V2`] is to be
    /// written back encrypted with the next write (P17).
    pub form: Form,
}

impl Vault {
    /// A vault with this key.
    #[must_use]
    pub fn new(key: Key) -> Self {
        // The key is wiped when it is dropped here; the cipher wipes its own schedule.
        Self { cipher: Aes256Gcm::new(key.bytes().into()), key_id: key.id() }
    }

    /// Tells keys apart without saying anything about them: eight hex digits.
    #[must_use]
    pub fn key_id(&self) -> &str {
        &self.key_id
    }

    /// Encrypts a value for its place: `enc:v2:<key id>:<base64>` (P16), with a
    /// fresh random nonce (P14).
    ///
    /// # Errors
    /// [`VaultError`] when the system gives no random bytes.
    pub fn seal(&self, place: &Place<'_>, clear: &str) -> Result<String, VaultError> {
        let mut nonce = [0; envelope::NONCE];
        getrandom::fill(&mut nonce).map_err(|_| VaultError::new(place, Why::NotSealed))?;
        let aad = envelope::place_bytes(place);
        let sealed = envelope::seal(&self.cipher, nonce, &aad, clear.as_bytes())
            .ok_or_else(|| VaultError::new(place, Why::NotSealed))?;
        Ok(envelope::write(&self.key_id, &sealed))
    }

    /// Opens what stands in a place: the present form, the one of earlier
    /// installs, or cleartext from before encryption (P17).
    ///
    /// # Errors
    /// [`VaultError`] when it claims to be encrypted and does not open.
    pub fn open(&self, place: &Place<'_>, stored: &str) -> Result<Opened, VaultError> {
        let refuse = |why| VaultError::new(place, why);
        let Some(Envelope { key_id, sealed }) = envelope::parse(stored).map_err(refuse)? else {
            let secret = Secret::new(stored.to_owned());
            return Ok(Opened { secret, form: Form::Cleartext });
        };
        let (aad, form) = match key_id {
            Some(id) if id != self.key_id => return Err(refuse(Why::OtherKey(id.to_owned()))),
            Some(_) => (envelope::place_bytes(place), Form::V2),
            None => (Vec::new(), Form::V1),
        };
        let clear = envelope::open(&self.cipher, &aad, &sealed);
        let secret = clear.and_then(envelope::text).ok_or_else(|| refuse(Why::NotOpened))?;
        Ok(Opened { secret, form })
    }
}

/// A value that did not open, or could not be encrypted, and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VaultError {
    /// Table, column and row, in words.
    place: String,
    /// What went wrong.
    pub why: Why,
}

/// Why a value was not opened or not encrypted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// It was encrypted with another key, the one with this id.
    OtherKey(String),
    /// It was changed, moved from another place, or encrypted with another key.
    /// Which of these it was, nobody learns.
    NotOpened,
    /// It is [`LOST`].
    Lost,
    /// It begins with `enc:` and a version that this program does not know.
    UnknownForm,
    /// The system gave no random bytes.
    NotSealed,
}

impl VaultError {
    fn new(place: &Place<'_>, why: Why) -> Self {
        let Place { table, column, row, .. } = place;
        let row = row.escape_debug();
        Self { place: format!("column {column} of table {table}, row {row}"), why }
    }
}

impl fmt::Display for VaultError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, ", self.place)?;
        match &self.why {
            Why::OtherKey(id) => write!(
                f,
                "is encrypted with the key {id}, which is not the one in use; give the server that key"
            ),
            Why::NotOpened => f.write_str(
                "does not open: it was changed or moved, or is encrypted with another key; enter \
                 the value again or restore a backup",
            ),
            Why::Lost => f.write_str("was lost with the encryption key; enter the value again"),
            Why::UnknownForm => f.write_str(
                "is encrypted in a form that this version does not know; use the version that \
                 wrote it, or enter the value again",
            ),
            Why::NotSealed => f.write_str(
                "was not saved: the system gave no random bytes to encrypt it with; try again in \
                 a moment",
            ),
        }
    }
}

impl std::error::Error for VaultError {}
