//! The fields of a JSON body, taken out one by one; what is left over is an error.

use super::ApiError;
use super::unique::Unique;
use crate::model::{Invalid, Secret};
use crate::store::AppSettings;
use serde::Deserialize;
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

/// A JSON object from a request, or the parameters after its question mark.
pub(super) struct Fields {
    map: Map<String, Value>,
    /// Where the object stands in the body: empty, or such as `env[3].`.
    place: String,
    /// What is said of one that nobody takes.
    unknown: Invalid,
}

const NO_FIELD: Invalid = Invalid("is not a field of this request");

impl Fields {
    pub(super) fn new(map: Map<String, Value>, unknown: Invalid) -> Self {
        Self { map, place: String::new(), unknown }
    }

    /// Reads a body that must be a JSON object.
    pub(super) fn of(body: &[u8]) -> Result<Self, ApiError> {
        match serde_json::from_slice(body).map(|Unique(value)| value) {
            Ok(Value::Object(map)) => Ok(Self::new(map, NO_FIELD)),
            Ok(_) => Err(ApiError::body("the body must be a JSON object")),
            // serde_json's own text names line and column, never content.
            Err(error) => Err(ApiError::body(format!("the body is not valid JSON: {error}"))),
        }
    }

    /// An object inside the body.
    pub(super) fn nested(value: Value, name: &str) -> Result<Self, ApiError> {
        match value {
            Value::Object(map) => Ok(Self { map, place: format!("{name}."), unknown: NO_FIELD }),
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

    /// A text that may be left out, which is `None`, or `null`, which is `Some(None)`.
    pub(super) fn nullable_text<T, E: Display>(
        &mut self,
        name: &str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Result<Option<Option<T>>, ApiError> {
        if self.map.get(name).is_some_and(Value::is_null) {
            self.map.remove(name);
            return Ok(Some(None));
        }
        Ok(self.text(name, parse)?.map(Some))
    }

    /// A text that must be there.
    pub(super) fn required<T, E: Display>(
        &mut self,
        name: &str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Result<T, ApiError> {
        self.text(name, parse)?.ok_or_else(|| self.error(name, Invalid("is missing")))
    }

    /// A parameter that is a whole number from 1 to `max`.
    pub(super) fn count(&mut self, name: &str, default: u32, max: u32) -> Result<u32, ApiError> {
        let number = self.text(name, |text| {
            let digits = text.bytes().all(|b| b.is_ascii_digit());
            let number = text.parse::<u32>().ok().filter(|n| digits && (1..=max).contains(n));
            number.ok_or(Invalid("is out of range; GET /api/openapi.json says what it takes"))
        })?;
        Ok(number.unwrap_or(default))
    }

    /// A parameter that is `true` or `false`.
    pub(super) fn flag(&mut self, name: &str) -> Result<bool, ApiError> {
        let flag =
            self.text(name, |text| text.parse().map_err(|_| Invalid("must be true or false")))?;
        Ok(flag.unwrap_or(false))
    }

    /// A boolean that may be left out.
    pub(super) fn boolean(&mut self, name: &str) -> Result<Option<bool>, ApiError> {
        match self.map.remove(name) {
            None => Ok(None),
            Some(Value::Bool(value)) => Ok(Some(value)),
            Some(_) => Err(self.error(name, Invalid("must be true or false"))),
        }
    }

    /// The settings of an app, those changed that are named here.
    pub(super) fn settings(&mut self, mut settings: AppSettings) -> Result<AppSettings, ApiError> {
        let mut all = serde_json::to_value(&settings).map_err(|_| ApiError::internal())?;
        let names = all.as_object().into_iter().flat_map(Map::keys);
        for name in names.cloned().collect::<Vec<_>>() {
            let Some(given) = self.map.remove(&name) else { continue };
            all[name.as_str()] = given;
            settings = AppSettings::deserialize(&all).map_err(|e| self.error(&name, e))?;
        }
        Ok(settings)
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
            Some(name) => Err(self.error(&shown(name), &self.unknown)),
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
