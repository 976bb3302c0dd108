//! Percent-encoding in paths, and the parameters after the question mark.

use super::ApiError;
use super::fields::{Fields, Object, shown};
use crate::model::{Invalid, percent_decoded};
use serde_json::value::to_raw_value;

/// What is said of a parameter that nobody takes, or that stands there twice.
const NO_PARAMETER: Invalid = Invalid("is not a parameter of this path");

/// One part of a path.
pub(super) fn decode_segment(segment: &str) -> Result<String, ApiError> {
    percent_decoded(segment).ok_or_else(|| {
        ApiError::new(400, "invalid_path", "the path holds a broken percent-encoding")
    })
}

/// The parameters after the question mark, each a text.
pub(super) fn parameters(query: Option<&str>) -> Result<Fields, ApiError> {
    let mut map = Object::new();
    for pair in query.unwrap_or("").split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let (name, value) = percent_decoded(name).zip(percent_decoded(value)).ok_or_else(|| {
            ApiError::new(400, "invalid_query", "the query holds a broken percent-encoding")
        })?;
        let value = to_raw_value(&value).map_err(|_| ApiError::internal())?;
        if map.insert(name.clone(), value).is_some() {
            return Err(ApiError::field(&shown(&name), NO_PARAMETER));
        }
    }
    Ok(Fields::new(map, NO_PARAMETER))
}
