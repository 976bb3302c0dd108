//! The admin token's life: made, kept in its file, compared (P1, P5, P6).

use super::AuthError;
use crate::data_dir::DataDir;
use crate::model::{ADMIN_TOKEN_LENGTH, Secret};
use data_encoding::{Encoding, HEXLOWER};
use sha2::{Digest as _, Sha256};
use std::fs;
use std::hint::black_box;
use std::io;
use std::os::unix::fs::MetadataExt;
use zeroize::Zeroizing;

/// Its file in the data directory: the token and a line end.
pub const FILE: &str = "admin_token.txt";
/// What a generated token begins with, so that secret scanners can know it.
const PREFIX: &str = "bpaas_";
/// Random bytes in a token, a ticket, a webhook's secret: 256 bits.
pub(super) const RANDOM: usize = 32;

/// Makes a token: `bpaas_` and 64 hex digits.
///
/// # Errors
/// [`AuthError::NoRandomness`].
pub fn generate() -> Result<Secret, AuthError> {
    random(PREFIX, &HEXLOWER)
}

/// A prefix and [`RANDOM`] random bytes in an encoding.
pub(super) fn random(prefix: &str, encoding: &Encoding) -> Result<Secret, AuthError> {
    let mut random = Zeroizing::new([0; RANDOM]);
    getrandom::fill(&mut *random).map_err(|_| AuthError::NoRandomness)?;
    // Room for all of it, so that growing leaves no copies in memory.
    let mut text = String::with_capacity(prefix.len() + encoding.encode_len(RANDOM));
    text.push_str(prefix);
    encoding.encode_append(&*random, &mut text);
    Ok(Secret::new(text))
}

/// Reads the token file; `None` when there is none.
///
/// # Errors
/// [`AuthError::Unreadable`], or [`AuthError::Malformed`] when what is in it is no token.
pub fn read(data: &DataDir) -> Result<Option<Secret>, AuthError> {
    let Some(text) = data.read_secret(FILE).map_err(AuthError::Unreadable)? else {
        return Ok(None);
    };
    let line = text.expose();
    let line = line.strip_suffix('\n').unwrap_or(line);
    let line = line.strip_suffix('\r').unwrap_or(line);
    if ADMIN_TOKEN_LENGTH.contains(&line.len()) && line.bytes().all(|b| b.is_ascii_graphic()) {
        Ok(Some(Secret::new(line.to_owned())))
    } else {
        Err(AuthError::Malformed { path: data.join(FILE) })
    }
}

/// Makes a new token and saves it. A running server that does not pin its token
/// honours it with the next request. The caller has made sure that
/// nothing pins the token.
///
/// # Errors
/// [`AuthError::NoRandomness`] or [`AuthError::Unwritable`]; the file is then what it was.
pub fn rotate_file(data: &DataDir) -> Result<Secret, AuthError> {
    let token = generate()?;
    let mut line = Zeroizing::new(Vec::with_capacity(token.expose().len() + 1));
    line.extend_from_slice(token.expose().as_bytes());
    line.push(b'\n');
    data.write_secret(FILE, &line).map_err(AuthError::Unwritable)?;
    Ok(token)
}

/// The SHA-256 digest of a secret. Two secrets of any lengths become 32 bytes
/// each, so that comparing them takes the same time whether the lengths agree
/// or not (P6).
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Digest([u8; 32]);

impl Digest {
    pub(super) fn of(secret: &[u8]) -> Self {
        Self(Sha256::digest(secret).into())
    }

    /// Whether what was presented has this digest. How long that takes depends
    /// on the length of what was presented, which its sender knows, and on
    /// nothing else (P6).
    pub(super) fn is_of(&self, presented: &[u8]) -> bool {
        equal(&Self::of(presented).0, &self.0)
    }
}

/// Compares every byte, whatever the ones before it said. `black_box` keeps the
/// compiler from finding a way to leave early.
pub(super) fn equal(one: &[u8; 32], other: &[u8; 32]) -> bool {
    let mut difference = 0;
    for (a, b) in one.iter().zip(other) {
        difference = black_box(difference | (a ^ b));
    }
    black_box(difference) == 0
}

/// The token in force, and what is known of its file.
pub(super) struct InForce {
    pub(super) token: Secret,
    digest: Digest,
    /// Counts the tokens that were in force, so that a session knows its own.
    pub(super) epoch: u64,
    /// The file as it was when it was read last.
    seen: Option<Stamp>,
    /// The log knows that the file is bad.
    complained: bool,
}

impl InForce {
    pub(super) fn new(token: Secret) -> Self {
        let digest = Digest::of(token.expose().as_bytes());
        Self { token, digest, epoch: 0, seen: None, complained: false }
    }

    pub(super) fn is(&self, presented: &[u8]) -> bool {
        self.digest.is_of(presented)
    }

    /// Puts another token in force.
    pub(super) fn adopt(&mut self, token: Secret) {
        self.digest = Digest::of(token.expose().as_bytes());
        self.token = token;
        self.epoch += 1;
        log::info!("the admin token was rotated; sessions that the old one opened end");
    }

    /// Honours a rotation by another process at once (P5): one `stat`, and a
    /// look into the file only when it is another one than before.
    ///
    /// A file that is gone, empty or damaged changes nothing but the log. The
    /// token in memory was right a moment ago and nobody has said that it is
    /// not: refusing it would lock the owner out for a slip of an editor, and
    /// an empty token must never open anything.
    pub(super) fn refresh(&mut self, data: &DataDir) {
        let stamp = match stamp(data) {
            Ok(stamp) if self.seen.as_ref() == Some(&stamp) => return,
            Ok(stamp) => stamp,
            Err(error) => {
                // Whatever comes back under this name is to be read anew.
                self.seen = None;
                self.complain(&error);
                return;
            }
        };
        match read(data) {
            Ok(Some(token)) => {
                // The stamp is from before the read: a file that took its place
                // in between has another stamp and is read next time.
                self.seen = Some(stamp);
                self.complained = false;
                if token != self.token {
                    self.adopt(token);
                }
            }
            Err(error @ AuthError::Malformed { .. }) => {
                self.seen = Some(stamp);
                self.complain(&error);
            }
            // A passing trouble, such as too many open files: look again next time.
            Ok(None) => {}
            Err(error) => self.complain(&error),
        }
    }

    fn complain(&mut self, error: &dyn std::fmt::Display) {
        if !self.complained {
            self.complained = true;
            log::warn!(
                "{FILE} in the data directory cannot be used, so the admin token in memory stays \
                 in force: {error}; `server token --rotate` writes a new one"
            );
        }
    }
}

/// Tells one version of the token file from the next: device, inode, length, when its content
/// and when anything of it changed. A rotation gives the name to another inode; the rest
/// notices an editor that writes in place.
type Stamp = (u64, u64, u64, [i64; 4]);

fn stamp(data: &DataDir) -> io::Result<Stamp> {
    let meta = fs::symlink_metadata(data.join(FILE))?;
    let times = [meta.mtime(), meta.mtime_nsec(), meta.ctime(), meta.ctime_nsec()];
    Ok((meta.dev(), meta.ino(), meta.len(), times))
}
