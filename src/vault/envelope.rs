//! The stored form of an encrypted value: its text around nonce, ciphertext, tag (P16, P17).

use super::key::is_id;
use super::{LOST, Place, Why};
use crate::model::Secret;
use aes_gcm::{AeadInOut, Aes256Gcm};
use data_encoding::BASE64;
use zeroize::Zeroizing;

/// Bytes of a nonce: 96 bits, the size that GCM is made for (NIST SP 800-38D).
/// Random ones are safe for 2^32 writes with one key, which no installation nears.
pub(super) const NONCE: usize = 12;
/// Bytes of a tag: 128 bits, the full size.
const TAG: usize = 16;

/// What every encrypted value begins with.
const PREFIX: &str = "enc:";
const V1: &str = "v1:";
const V2: &str = "v2:";
/// Begins what is authenticated with a value, so that it can never be mistaken
/// for what another version, or another program with this key, authenticates.
const DOMAIN: &[u8] = b"better-paas enc:v2";

/// A stored text that was taken apart.
pub(super) struct Envelope<'a> {
    /// The key that sealed it, and the place with it; earlier installs named neither.
    pub(super) key_id: Option<&'a str>,
    /// Nonce, ciphertext and tag.
    pub(super) sealed: Vec<u8>,
}

/// Takes a stored text apart; `None` is cleartext. Only what does not begin with `enc:` is
/// cleartext: a damaged envelope must not turn into a value.
pub(super) fn parse(stored: &str) -> Result<Option<Envelope<'_>>, Why> {
    let Some(rest) = stored.strip_prefix(PREFIX) else { return Ok(None) };
    if stored == LOST {
        return Err(Why::Lost);
    }
    let (key_id, text) = if let Some(text) = rest.strip_prefix(V1) {
        (None, text)
    } else {
        let rest = rest.strip_prefix(V2).ok_or(Why::UnknownForm)?;
        let parts = rest.split_once(':').filter(|(key_id, _)| is_id(key_id));
        let (key_id, text) = parts.ok_or(Why::NotOpened)?;
        (Some(key_id), text)
    };
    let sealed = BASE64.decode(text.as_bytes()).map_err(|_| Why::NotOpened)?;
    Ok(Some(Envelope { key_id, sealed }))
}

/// The stored text of a sealed value.
pub(super) fn write(key_id: &str, sealed: &[u8]) -> String {
    let mut text = format!("{PREFIX}{V2}{key_id}:");
    BASE64.encode_append(sealed, &mut text);
    text
}

/// What is authenticated with a value. Each part has its length before it, so
/// that no two places give the same bytes.
pub(super) fn place_bytes(place: &Place<'_>) -> Vec<u8> {
    let mut bytes = DOMAIN.to_vec();
    for part in [place.table, place.column, place.row, place.context] {
        bytes.extend_from_slice(&(part.len() as u64).to_be_bytes());
        bytes.extend_from_slice(part.as_bytes());
    }
    bytes
}

/// Nonce, ciphertext and tag of a value; `None` only beyond 64 GiB.
pub(super) fn seal(
    cipher: &Aes256Gcm,
    nonce: [u8; NONCE],
    aad: &[u8],
    clear: &[u8],
) -> Option<Vec<u8>> {
    // Room for all of it: growing would leave a copy of the cleartext behind.
    let mut sealed = Zeroizing::new(Vec::with_capacity(NONCE + clear.len() + TAG));
    sealed.extend_from_slice(&nonce);
    sealed.extend_from_slice(clear);
    let in_place = (&mut sealed[NONCE..]).into();
    let tag = cipher.encrypt_inout_detached(&nonce.into(), aad, in_place).ok()?;
    sealed.extend_from_slice(&tag);
    Some(std::mem::take(&mut *sealed))
}

/// Opens nonce, ciphertext and tag; `None` when anything about them is not as it was sealed.
pub(super) fn open(cipher: &Aes256Gcm, aad: &[u8], sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let (nonce, rest) = sealed.split_first_chunk::<NONCE>()?;
    let (hidden, tag) = rest.split_last_chunk::<TAG>()?;
    let mut clear = Zeroizing::new(hidden.to_vec());
    let in_place = clear.as_mut_slice().into();
    cipher.decrypt_inout_detached(nonce.into(), aad, in_place, tag.into()).ok()?;
    Some(clear)
}

/// The text in opened bytes; `None` when they are none.
pub(super) fn text(mut clear: Zeroizing<Vec<u8>>) -> Option<Secret> {
    match String::from_utf8(std::mem::take(&mut *clear)) {
        Ok(text) => Some(Secret::new(text)),
        Err(error) => {
            drop(Zeroizing::new(error.into_bytes()));
            None
        }
    }
}
