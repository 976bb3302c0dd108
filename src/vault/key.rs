//! The vault's key: where it comes from, how it is read, made, named (P15).

use crate::data_dir::{DataDir, read_secret_at};
use crate::model::Secret;
use data_encoding::{BASE64_NOPAD, BASE64URL_NOPAD, Encoding, HEXLOWER, HEXLOWER_PERMISSIVE};
use sha2::{Digest, Sha256};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// The environment variable that holds the key.
pub const VARIABLE: &str = "BETTER_PAAS_SECRET_KEY";
/// The systemd credential that holds the key.
pub const CREDENTIAL: &str = "better_paas_secret_key";
/// The file in the data directory that holds the key: hex digits and a line end.
pub const FILE: &str = "secret.key";

/// Bytes of a key: AES-256.
const LENGTH: usize = 32;
/// Characters of a key in hex.
const HEX_LENGTH: usize = 2 * LENGTH;
/// Characters of a key in base64 without the padding, which is one `=`.
const BASE64_LENGTH: usize = 43;
/// Bytes of the digest that make a key's id: enough to tell an installation's
/// few keys apart, far too few to test guesses against.
const ID_BYTES: usize = 4;
/// Goes into the digest before the key, so that the id is of no other use.
const ID_DOMAIN: &[u8] = b"better-paas key id";

/// A 256-bit key, wiped from memory when dropped.
#[derive(Clone)]
pub struct Key(Zeroizing<[u8; LENGTH]>);

impl Key {
    /// Makes a random key.
    ///
    /// # Errors
    /// [`KeyError::NoRandomness`].
    pub fn generate() -> Result<Self, KeyError> {
        let mut bytes = Zeroizing::new([0; LENGTH]);
        getrandom::fill(&mut *bytes).map_err(|_| KeyError::NoRandomness)?;
        Ok(Self(bytes))
    }

    /// Reads a key: 32 bytes as 64 hex digits, or in base64 of either alphabet,
    /// padded or not. Whitespace around it is ignored, since files end with a
    /// line end.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim_ascii();
        if text.len() == HEX_LENGTH {
            return Self::decode(&HEXLOWER_PERMISSIVE, text);
        }
        let text = text.strip_suffix('=').unwrap_or(text);
        if text.len() != BASE64_LENGTH {
            return None;
        }
        Self::decode(&BASE64_NOPAD, text).or_else(|| Self::decode(&BASE64URL_NOPAD, text))
    }

    fn decode(encoding: &Encoding, text: &str) -> Option<Self> {
        let mut bytes = Zeroizing::new([0; LENGTH]);
        let length = encoding.decode_mut(text.as_bytes(), &mut *bytes).ok()?;
        (length == LENGTH).then_some(Self(bytes))
    }

    /// Tells keys apart without saying anything about them: eight hex digits.
    #[must_use]
    pub fn id(&self) -> String {
        let digest = Sha256::new().chain_update(ID_DOMAIN).chain_update(*self.0).finalize();
        HEXLOWER.encode(&digest[..ID_BYTES])
    }

    /// The key in hex, for its file.
    #[must_use]
    pub fn to_hex(&self) -> Secret {
        Secret::new(HEXLOWER.encode(&*self.0))
    }

    /// Saves the key as [`FILE`], whole or not at all.
    ///
    /// # Errors
    /// [`KeyError::Unwritable`].
    pub fn save(&self, data: &DataDir) -> Result<(), KeyError> {
        let mut line = Zeroizing::new(Vec::with_capacity(HEX_LENGTH + 1));
        line.extend_from_slice(self.to_hex().expose().as_bytes());
        line.push(b'\n');
        data.write_secret(FILE, &line).map_err(KeyError::Unwritable)
    }

    pub(super) fn bytes(&self) -> &[u8; LENGTH] {
        &self.0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.id())
    }
}

/// Whether a text has the form of a key's id.
pub(super) fn is_id(text: &str) -> bool {
    text.len() == 2 * ID_BYTES && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// Where a key came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// [`VARIABLE`].
    Environment,
    /// [`CREDENTIAL`], under `$CREDENTIALS_DIRECTORY`.
    Credential,
    /// [`FILE`], at this path.
    File(PathBuf),
}

impl fmt::Display for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Environment => write!(f, "the environment variable {VARIABLE}"),
            Self::Credential => write!(f, "the systemd credential {CREDENTIAL}"),
            Self::File(path) => write!(f, "the file {}", path.display()),
        }
    }
}

/// Finds the key, in the order of P15: environment, credential, file. The first
/// of them that is there counts, also when it is bad: a slip must not silently
/// switch to another key.
///
/// `may_create` says that there is no database yet. Only then is a missing key
/// made and saved: a new key for an old database would open nothing in it.
///
/// # Errors
/// [`KeyError`], which names the source.
pub fn load(
    secret_key: Option<&Secret>,
    credentials_directory: Option<&Path>,
    data: &DataDir,
    may_create: bool,
) -> Result<(Key, KeySource), KeyError> {
    let path = data.join(FILE);
    // A unit may have other credentials and no key among them.
    let credential = credentials_directory.map(|at| read_secret_at(&at.join(CREDENTIAL)));
    let found = match (secret_key, credential) {
        (Some(text), _) => (KeySource::Environment, Ok(Some(text.clone()))),
        (None, Some(text @ (Ok(Some(_)) | Err(_)))) => (KeySource::Credential, text),
        (None, Some(Ok(None)) | None) => (KeySource::File(path.clone()), data.read_secret(FILE)),
    };
    match found {
        (source, Ok(Some(text))) => match Key::parse(text.expose()) {
            Some(key) => return Ok((key, source)),
            None => return Err(KeyError::Malformed { source }),
        },
        (source, Err(why)) => return Err(KeyError::Unreadable { source, why }),
        (_, Ok(None)) => {}
    }
    if !may_create {
        return Err(KeyError::Lost { path });
    }
    let key = Key::generate()?;
    key.save(data)?;
    Ok((key, KeySource::File(path)))
}

/// Why there is no key.
#[derive(Debug)]
pub enum KeyError {
    /// What is there is no key.
    Malformed {
        /// Where.
        source: KeySource,
    },
    /// It cannot be read.
    Unreadable {
        /// Where.
        source: KeySource,
        /// What the system said.
        why: io::Error,
    },
    /// There is a database and no key for it.
    Lost {
        /// The file where it was looked for last.
        path: PathBuf,
    },
    /// A new key cannot be saved.
    Unwritable(io::Error),
    /// The system gives no random bytes.
    NoRandomness,
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed { source } => write!(
                f,
                "{source} does not hold a key: write 32 bytes as 64 hex digits or in base64. If \
                 this key was in use before, put exactly that one back"
            ),
            Self::Unreadable { source, why } => {
                write!(f, "{source}, which should hold the key, cannot be read: {why}")
            }
            Self::Lost { path } => write!(
                f,
                "the database is there, but the key to its secrets is not: neither {VARIABLE} nor \
                 the systemd credential {CREDENTIAL} is set, and {} does not exist. Put the key \
                 back where it was; no other one opens this database",
                path.display()
            ),
            Self::Unwritable(why) => write!(f, "a new key could not be saved: {why}"),
            Self::NoRandomness => {
                f.write_str("the system gave no random bytes for a new key; try again in a moment")
            }
        }
    }
}

impl std::error::Error for KeyError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Unreadable { why, .. } | Self::Unwritable(why) => Some(why),
            Self::Malformed { .. } | Self::Lost { .. } | Self::NoRandomness => None,
        }
    }
}
