//! The fields of a JSON body, taken out one by one; what is left over is an error.

use super::ApiError;
use crate::model::Invalid;
use serde_json::{Map, Value};

/// A JSON object from a request.
pub(super) struct Fields(Map<String, Value>);

impl Fields {
    /// Reads a body that must be a JSON object.
    pub(super) fn of(body: &[u8]) -> Result<Self, ApiError> {
        match serde_json::from_slice(body) {
            Ok(Value::Object(map)) => Ok(Self(map)),
            Ok(_) => Err(ApiError::body("the body must be a JSON object")),
            // serde_json's own text names line and column, never content.
            Err(error) => Err(ApiError::body(format!("the body is not valid JSON: {error}"))),
        }
    }

    /// An object inside the body.
    pub(super) fn nested(value: Value, name: &str) -> Result<Self, ApiError> {
        match value {
            Value::Object(map) => Ok(Self(map)),
            _ => Err(ApiError::field(name, Invalid("must be a JSON object"))),
        }
    }

    /// A text that may be left out, read into its type.
    pub(super) fn text<T>(
        &mut self,
        name: &str,
        parse: impl FnOnce(&str) -> Result<T, Invalid>,
    ) -> Result<Option<T>, ApiError> {
        match self.0.remove(name) {
            None => Ok(None),
            Some(Value::String(text)) => {
                parse(&text).map(Some).map_err(|e| ApiError::field(name, e))
            }
            Some(_) => Err(ApiError::field(name, Invalid("must be a text"))),
        }
    }

    /// A text that may be left out or `null`: `None`, `Some(None)`, `Some(Some(…))`.
    pub(super) fn nullable_text<T>(
        &mut self,
        name: &str,
        parse: impl FnOnce(&str) -> Result<T, Invalid>,
    ) -> Result<Option<Option<T>>, ApiError> {
        if self.0.get(name).is_some_and(Value::is_null) {
            self.0.remove(name);
            return Ok(Some(None));
        }
        Ok(self.text(name, parse)?.map(Some))
    }

    /// A text that must be there.
    pub(super) fn required<T>(
        &mut self,
        name: &str,
        parse: impl FnOnce(&str) -> Result<T, Invalid>,
    ) -> Result<T, ApiError> {
        self.text(name, parse)?.ok_or_else(|| ApiError::field(name, Invalid("is missing")))
    }

    /// A whole number that may be left out, read into its type.
    pub(super) fn integer<T>(
        &mut self,
        name: &str,
        parse: impl FnOnce(i64) -> Result<T, Invalid>,
    ) -> Result<Option<T>, ApiError> {
        match self.0.remove(name) {
            None => Ok(None),
            Some(value) => value
                .as_i64()
                .ok_or(Invalid("must be a whole number"))
                .and_then(parse)
                .map(Some)
                .map_err(|e| ApiError::field(name, e)),
        }
    }

    /// A boolean that may be left out.
    pub(super) fn boolean(&mut self, name: &str) -> Result<Option<bool>, ApiError> {
        match self.0.remove(name) {
            None => Ok(None),
            Some(Value::Bool(value)) => Ok(Some(value)),
            Some(_) => Err(ApiError::field(name, Invalid("must be true or false"))),
        }
    }

    /// A list that must be there.
    pub(super) fn list(&mut self, name: &str) -> Result<Vec<Value>, ApiError> {
        match self.0.remove(name) {
            Some(Value::Array(values)) => Ok(values),
            Some(_) => Err(ApiError::field(name, Invalid("must be a list"))),
            None => Err(ApiError::field(name, Invalid("is missing"))),
        }
    }

    /// Refuses what nobody took out: a field with a slip in its name must not
    /// be ignored.
    pub(super) fn finish(self) -> Result<(), ApiError> {
        match self.0.keys().next() {
            None => Ok(()),
            Some(name) => {
                let shown: String = name.chars().filter(|c| !c.is_control()).take(60).collect();
                Err(ApiError::field(&shown, Invalid("is not a field of this request")))
            }
        }
    }
}
