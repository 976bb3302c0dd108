//! The vault's key: where it comes from, how it is read, made, named (P15).

use crate::data_dir::{DataDir, named, read_secret_at};
use crate::model::{AnyError, Secret, failed};
use data_encoding::{BASE64_NOPAD, BASE64URL_NOPAD, Encoding, HEXLOWER, HEXLOWER_PERMISSIVE};
use sha2::{Digest, Sha256};
use std::fmt;
use std::io;
use std::path::Path;
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
    /// A random key.
    ///
    /// # Errors
    /// When the system gives no random bytes.
    pub fn random() -> Result<Self, AnyError> {
        let mut bytes = Zeroizing::new([0; LENGTH]);
        let why = |_| "the system gave no random bytes for a new key; try again in a moment";
        getrandom::fill(&mut *bytes).map_err(why)?;
        Ok(Self(bytes))
    }

    /// The key in [`FILE`] or another file, if there is one.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn saved(data: &DataDir, file: &str) -> io::Result<Option<Self>> {
        Ok(data.read_secret(file)?.and_then(|text| Self::parse(text.expose())))
    }

    /// The key of an id in [`FILE`] or beside it, and the name of its file.
    #[must_use]
    pub fn find(data: &DataDir, id: &str) -> Option<(Self, String)> {
        let of_keys = |name: &str| name.starts_with(FILE).then(|| name.to_owned());
        let mut keys = named(data.path(), of_keys).into_iter().filter_map(|file| {
            let key = Self::saved(data, &file).ok()??;
            Some((key, file))
        });
        keys.find(|(key, _)| key.id() == id)
    }

    /// The file that holds it while another one is in force: the database wants it where a change
    /// was cut short, and so does what was backed up until then. It is no other key's.
    #[must_use]
    pub fn own_file(&self) -> String {
        format!("{FILE}.{}", self.id())
    }

    /// Saves it, whole or not at all.
    ///
    /// # Errors
    /// As for a full disk; the file is then what it was.
    pub fn save(&self, data: &DataDir, file: &str) -> Result<(), AnyError> {
        let line = Zeroizing::new([self.to_hex().expose().as_bytes(), b"\n"].concat());
        data.write_secret(file, &line).map_err(failed("a key could not be saved"))
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

/// Puts a key into [`FILE`], and the one that is there beside it first: at each moment both are
/// on the disk.
///
/// # Errors
/// As for a full disk.
pub fn exchange(data: &DataDir, key: &Key, other: &Key) -> Result<(), AnyError> {
    other.save(data, &other.own_file())?;
    key.save(data, FILE)
}

/// Whether environment or credential give the key, and not [`FILE`].
#[must_use]
pub fn is_pinned(secret_key: Option<&Secret>, credentials_directory: Option<&Path>) -> bool {
    secret_key.is_some() || credentials_directory.is_some_and(|at| at.join(CREDENTIAL).exists())
}

/// Finds the key, in the order of P15: environment, credential, file. The first
/// of them that is there counts, also when it is bad: a slip must not silently
/// switch to another key. Answers it and where it is from, in words.
///
/// `may_create` says that there is no database yet. Only then is a missing key
/// made and saved: a new key for an old database would open nothing in it.
///
/// # Errors
/// Why there is no key; the sentence names where it was looked for.
pub fn load(
    secret_key: Option<&Secret>,
    credentials_directory: Option<&Path>,
    data: &DataDir,
    may_create: bool,
) -> Result<(Key, String), AnyError> {
    let path = data.join(FILE);
    let path = path.display();
    // A unit may have other credentials and no key among them.
    let credential = credentials_directory.map(|at| read_secret_at(&at.join(CREDENTIAL)));
    let (source, found) = match (secret_key, credential) {
        (Some(text), _) => (format!("the environment variable {VARIABLE}"), Ok(Some(text.clone()))),
        (None, Some(text @ (Ok(Some(_)) | Err(_)))) => {
            (format!("the systemd credential {CREDENTIAL}"), text)
        }
        (None, Some(Ok(None)) | None) => (format!("the file {path}"), data.read_secret(FILE)),
    };
    let key = match found {
        Ok(Some(text)) => Key::parse(text.expose()).ok_or_else(|| {
            AnyError::from(format!(
                "{source} does not hold a key: write 32 bytes as 64 hex digits or in base64. If \
                 this key was in use before, put exactly that one back"
            ))
        }),
        Ok(None) if may_create => {
            let key = Key::random()?;
            key.save(data, FILE).map(|()| key)
        }
        Ok(None) => Err(AnyError::from(format!(
            "the database is there, but the key to its secrets is not: neither {VARIABLE} nor \
             the systemd credential {CREDENTIAL} is set, and {path} does not exist. Put the \
             key back where it was; no other one opens this database. If it is lost for good, \
             `server rekey --mark-lost` says what goes with it"
        ))),
        Err(why) => {
            let what = format!("{source}, which should hold the key, cannot be read");
            Err(failed(what)(why))
        }
    };
    Ok((key?, source))
}
