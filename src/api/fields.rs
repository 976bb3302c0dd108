//! The fields of a JSON body, taken out one by one; what is left over is an error.

use super::ApiError;
use super::unique::Unique;
use crate::model::{Invalid, Secret};
use serde_json::{Map, Value};
use std::fmt::Display;

/// Bytes of a Git host's token; the longest in use, which are signed, have some hundreds.
const MAX_GIT_TOKEN: usize = 1024;

/// Characters that an error repeats of a name from outside: enough to recognise a slip.
const SHOWN: usize = 60;

/// What an error shows of a name that is none of ours.
pub(super) fn shown(name: &str) -> String {
    name.chars().filter(|c| !c.is_control()).take(SHOWN).collect()
}

/// A JSON object from a request.
pub(super) struct Fields {
    map: Map<String, Value>,
    /// Where the object stands in the body: empty, or such as `env[3].`.
    place: String,
}

/// What a request says about a field that may be `null`.
pub(super) enum Nullable<T> {
    /// Nothing: it stays as it is.
    Absent,
    /// `null`: there is to be none.
    Null,
    /// This.
    Value(T),
}

impl<T> Nullable<T> {
    /// The value, where it makes no difference why there is none.
    pub(super) fn value(self) -> Option<T> {
        match self {
            Self::Absent | Self::Null => None,
            Self::Value(value) => Some(value),
        }
    }
}

impl Fields {
    /// Reads a body that must be a JSON object.
    pub(super) fn of(body: &[u8]) -> Result<Self, ApiError> {
        match serde_json::from_slice(body).map(|Unique(value)| value) {
            Ok(Value::Object(map)) => Ok(Self { map, place: String::new() }),
            Ok(_) => Err(ApiError::body("the body must be a JSON object")),
            // serde_json's own text names line and column, never content.
            Err(error) => Err(ApiError::body(format!("the body is not valid JSON: {error}"))),
        }
    }

    /// An object inside the body.
    pub(super) fn nested(value: Value, name: &str) -> Result<Self, ApiError> {
        match value {
            Value::Object(map) => Ok(Self { map, place: format!("{name}.") }),
            _ => Err(ApiError::field(name, Invalid("must be a JSON object"))),
        }
    }

    fn error(&self, name: &str, problem: impl Display) -> ApiError {
        ApiError::field(&format!("{}{name}", self.place), problem)
    }

    /// A text that may be left out, read into its type.
    pub(super) fn text<T, E: Display>(
        &mut self,
        name: &str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Result<Option<T>, ApiError> {
        match self.map.remove(name) {
            None => Ok(None),
            Some(Value::String(text)) => parse(&text).map(Some).map_err(|e| self.error(name, e)),
            Some(_) => Err(self.error(name, Invalid("must be a text"))),
        }
    }

    /// A text that may be left out or `null`.
    pub(super) fn nullable_text<T, E: Display>(
        &mut self,
        name: &str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Result<Nullable<T>, ApiError> {
        if self.map.get(name).is_some_and(Value::is_null) {
            self.map.remove(name);
            return Ok(Nullable::Null);
        }
        Ok(self.text(name, parse)?.map_or(Nullable::Absent, Nullable::Value))
    }

    /// A text that must be there.
    pub(super) fn required<T, E: Display>(
        &mut self,
        name: &str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Result<T, ApiError> {
        self.text(name, parse)?.ok_or_else(|| self.error(name, Invalid("is missing")))
    }

    /// A whole number that may be left out, read into its type.
    pub(super) fn integer<T>(
        &mut self,
        name: &str,
        parse: impl FnOnce(i64) -> Result<T, Invalid>,
    ) -> Result<Option<T>, ApiError> {
        match self.map.remove(name) {
            None => Ok(None),
            Some(value) => value
                .as_i64()
                .ok_or(Invalid("must be a whole number"))
                .and_then(parse)
                .map(Some)
                .map_err(|e| self.error(name, e)),
        }
    }

    /// A boolean that may be left out.
    pub(super) fn boolean(&mut self, name: &str) -> Result<Option<bool>, ApiError> {
        match self.map.remove(name) {
            None => Ok(None),
            Some(Value::Bool(value)) => Ok(Some(value)),
            Some(_) => Err(self.error(name, Invalid("must be true or false"))),
        }
    }

    /// A list of texts that may be left out, each read into its type; none may
    /// stand there twice.
    pub(super) fn texts<T: PartialEq>(
        &mut self,
        name: &str,
        most: usize,
        parse: impl Fn(&str) -> Result<T, Invalid>,
    ) -> Result<Option<Vec<T>>, ApiError> {
        let values = match self.map.remove(name) {
            None => return Ok(None),
            Some(Value::Array(values)) => values,
            Some(_) => return Err(self.error(name, Invalid("must be a list of texts"))),
        };
        if values.len() > most {
            return Err(self.error(name, Invalid("has too many entries")));
        }
        let mut read = Vec::with_capacity(values.len());
        for (at, value) in values.into_iter().enumerate() {
            let Value::String(text) = value else {
                return Err(self.error(name, Invalid("must be a list of texts")));
            };
            let value = parse(&text).map_err(|e| self.error(name, e).of_entry(at + 1))?;
            if read.contains(&value) {
                return Err(self.error(name, Invalid("holds the same entry twice")));
            }
            read.push(value);
        }
        Ok(Some(read))
    }

    /// A list that must be there.
    pub(super) fn list(&mut self, name: &str) -> Result<Vec<Value>, ApiError> {
        match self.map.remove(name) {
            Some(Value::Array(values)) => Ok(values),
            Some(_) => Err(self.error(name, Invalid("must be a list"))),
            None => Err(self.error(name, Invalid("is missing"))),
        }
    }

    /// Refuses what nobody took out: a field with a slip in its name must not
    /// be ignored.
    pub(super) fn finish(self) -> Result<(), ApiError> {
        match self.map.keys().next() {
            None => Ok(()),
            Some(name) => Err(self.error(&shown(name), Invalid("is not a field of this request"))),
        }
    }
}

/// Refuses a body where none is expected, but for an empty object.
pub(super) fn no_body(body: &[u8]) -> Result<(), ApiError> {
    if body.is_empty() { Ok(()) } else { Fields::of(body)?.finish() }
}

/// A Git host's token: one visible ASCII word.
pub(super) fn token(text: &str) -> Result<Secret, Invalid> {
    if text.is_empty() || text.len() > MAX_GIT_TOKEN {
        Err(Invalid("must have 1 to 1024 characters"))
    } else if !text.bytes().all(|b| b.is_ascii_graphic()) {
        Err(Invalid("must be one word of visible ASCII characters; paste the token alone"))
    } else {
        Ok(Secret::new(text.to_owned()))
    }
}
