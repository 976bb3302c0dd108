//! Percent-encoding in paths, and the parameters after the question mark.

use super::ApiError;
use super::fields::{Fields, shown};
use crate::model::Invalid;
use serde_json::Map;

/// What is said of a parameter that nobody takes, or that stands there twice.
const NO_PARAMETER: Invalid = Invalid("is not a parameter of this path");

/// Decodes percent-encoding (RFC 3986, section 2.1); `None` when it is broken or
/// the result is not UTF-8.
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let high = char::from(rest.next()?).to_digit(16)?;
            let low = char::from(rest.next()?).to_digit(16)?;
            bytes.push(u8::try_from(high * 16 + low).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

/// One part of a path.
pub(super) fn decode_segment(segment: &str) -> Result<String, ApiError> {
    decode(segment).ok_or_else(|| {
        ApiError::new(400, "invalid_path", "the path holds a broken percent-encoding")
    })
}

/// The parameters after the question mark, each a text.
pub(super) fn parameters(query: Option<&str>) -> Result<Fields, ApiError> {
    let mut map = Map::new();
    for pair in query.unwrap_or("").split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let (name, value) = decode(name).zip(decode(value)).ok_or_else(|| {
            ApiError::new(400, "invalid_query", "the query holds a broken percent-encoding")
        })?;
        if map.insert(name.clone(), value.into()).is_some() {
            return Err(ApiError::field(&shown(&name), NO_PARAMETER));
        }
    }
    Ok(Fields::new(map, NO_PARAMETER))
}

#[cfg(test)]
mod tests {
    use super::decode;

    #[test]
    fn percent_encoding_is_decoded_once_and_strictly() {
        assert_eq!(decode("a%2Fb%25").as_deref(), Some("a/b%"));
        assert_eq!(decode("%252F").as_deref(), Some("%2F"));
        for broken in ["%", "%2", "%zz", "%ff", "%+1"] {
            assert_eq!(decode(broken), None, "{broken}");
        }
    }
}
