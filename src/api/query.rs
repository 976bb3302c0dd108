//! Percent-encoding in paths, and the parameters after the question mark.

use super::ApiError;
use super::fields::shown;
use crate::model::{Invalid, percent_decoded};

/// One part of a path.
pub(super) fn decode_segment(segment: &str) -> Result<String, ApiError> {
    percent_decoded(segment).ok_or_else(|| {
        ApiError::new(400, "invalid_path", "the path holds a broken percent-encoding")
    })
}

/// The query's parameters, taken out one by one; what is left over is an error.
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    pub(super) fn of(query: Option<&str>) -> Result<Self, ApiError> {
        let pairs = query.unwrap_or("").split('&').filter(|pair| !pair.is_empty());
        pairs
            .map(|pair| {
                let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                percent_decoded(name).zip(percent_decoded(value)).ok_or_else(|| {
                    ApiError::new(400, "invalid_query", "the query holds a broken percent-encoding")
                })
            })
            .collect::<Result<_, _>>()
            .map(Self)
    }

    pub(super) fn text<T>(
        &mut self,
        name: &str,
        parse: impl FnOnce(&str) -> Result<T, Invalid>,
    ) -> Result<Option<T>, ApiError> {
        let Some(at) = self.0.iter().position(|(n, _)| n == name) else { return Ok(None) };
        let (_, value) = self.0.swap_remove(at);
        parse(&value).map(Some).map_err(|e| ApiError::field(name, e))
    }

    /// A whole number from 1 to `max`.
    pub(super) fn count(&mut self, name: &str, default: u32, max: u32) -> Result<u32, ApiError> {
        let number = self.text(name, |text| {
            let digits = text.bytes().all(|b| b.is_ascii_digit());
            let number = text.parse::<u32>().ok().filter(|n| digits && (1..=max).contains(n));
            number.ok_or(Invalid("is out of range; GET /api/openapi.json says what it takes"))
        })?;
        Ok(number.unwrap_or(default))
    }

    /// `true` or `false`.
    pub(super) fn flag(&mut self, name: &str) -> Result<bool, ApiError> {
        let flag = self.text(name, |text| match text {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Err(Invalid("must be true or false")),
        })?;
        Ok(flag.unwrap_or(false))
    }

    pub(super) fn finish(self) -> Result<(), ApiError> {
        match self.0.first() {
            None => Ok(()),
            Some((name, _)) => {
                Err(ApiError::field(&shown(name), Invalid("is not a parameter of this path")))
            }
        }
    }
}
