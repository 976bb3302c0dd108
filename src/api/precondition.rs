//! `ETag` and `If-Match` of lists that are written as a whole: of two who change one at a time,
//! the later does not undo unseen what the earlier did (RFC 9110, 13.1.1).

use super::{Answer, Answered, ApiError, Request};
use data_encoding::HEXLOWER;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

/// Bytes of a digest that a tag has: enough to tell the states of one list apart.
const TAG: usize = 16;

/// The tag of a list that is stored as this.
pub(super) fn tag(stored: &impl Serialize) -> Result<String, ApiError> {
    let bytes = serde_json::to_vec(stored).map_err(|_| ApiError::internal())?;
    Ok(format!("\"{}\"", HEXLOWER.encode(&Sha256::digest(bytes)[..TAG])))
}

/// Refuses a request that is to change another state of the list than the one with this tag.
/// Requests that change something are answered one after the other, so it stays that one.
pub(super) fn check(request: &Request<'_>, tag: &str) -> Result<(), ApiError> {
    let named = request.fields.iter().filter(|(name, _)| name.eq_ignore_ascii_case("if-match"));
    let mut named = named.flat_map(|(_, value)| value.split(|byte| *byte == b',')).peekable();
    let fits = |one: &[u8]| [tag.as_bytes(), b"*"].contains(&one.trim_ascii());
    if named.peek().is_none() || named.any(fits) {
        return Ok(());
    }
    let text = "the list was changed meanwhile, in another tab or by a script, so nothing was \
                written; read it again, and write what it is to be now";
    Err(ApiError::new(412, "list_changed", text))
}

/// The list as an answer shows it, with its tag.
pub(super) fn tagged(list: &impl Serialize, tag: String) -> Answered {
    let mut answer = Answer::json(200, list);
    answer.header("ETag", tag);
    Ok(answer)
}
