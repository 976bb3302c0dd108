//! The fields of a JSON body, taken out one by one; what is left over is an error.

use super::ApiError;
use crate::model::{Invalid, Secret};
use crate::store::AppSettings;
use serde::de::{Deserializer as _, Error as _, MapAccess, Visitor};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Map;
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::fmt::{self, Display};

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
    map: Object,
    /// Where the object stands in the body: empty, or such as `env[3].`.
    place: String,
    /// What is said of one that nobody takes.
    unknown: Invalid,
}

const NO_FIELD: Invalid = Invalid("is not a field of this request");

/// What is said of anything else where an object must be.
const OBJECT: &str = "must be a JSON object that names nothing twice";

/// The values of a JSON object, not read yet.
pub(super) type Object = BTreeMap<String, Box<RawValue>>;

/// Reads an object that names nothing twice. Of two values under one name, one program takes
/// the first and another the last (RFC 8259 §4); what was checked on the way here and what is
/// stored could differ.
struct Once;

impl<'de> Visitor<'de> for Once {
    type Value = Object;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Object, A::Error> {
        let mut object = Object::new();
        while let Some((name, value)) = entries.next_entry()? {
            if object.insert(name, value).is_some() {
                return Err(A::Error::custom(OBJECT));
            }
        }
        Ok(object)
    }
}

fn object(json: &[u8]) -> serde_json::Result<Object> {
    let mut json = serde_json::Deserializer::from_slice(json);
    let object = json.deserialize_map(Once)?;
    json.end().map(|()| object)
}

impl Fields {
    pub(super) fn new(map: Object, unknown: Invalid) -> Self {
        Self { map, place: String::new(), unknown }
    }

    /// Reads a body that must be a JSON object.
    pub(super) fn of(body: &[u8]) -> Result<Self, ApiError> {
        match object(body) {
            Ok(map) => Ok(Self::new(map, NO_FIELD)),
            Err(error) if error.is_data() => Err(ApiError::body(format!("the body {OBJECT}"))),
            // serde_json's own text of a slip names line and column, never content.
            Err(error) => Err(ApiError::body(format!("the body is not valid JSON: {error}"))),
        }
    }

    /// An object inside the body.
    fn nested(value: &RawValue, name: &str) -> Result<Self, ApiError> {
        let map = object(value.get().as_bytes());
        let map = map.map_err(|_| ApiError::field(name, Invalid(OBJECT)))?;
        Ok(Self { map, place: format!("{name}."), unknown: NO_FIELD })
    }

    fn error(&self, name: &str, problem: impl Display) -> ApiError {
        ApiError::field(&format!("{}{name}", self.place), problem)
    }

    /// A value that may be left out, of a type that goes by `kind`.
    pub(super) fn value<T: DeserializeOwned>(
        &mut self,
        name: &str,
        kind: &'static str,
    ) -> Result<Option<T>, ApiError> {
        let value = self.map.remove(name).map(|value| serde_json::from_str(value.get()));
        value.transpose().map_err(|_| self.error(name, Invalid(kind)))
    }

    /// A text that may be left out, read into its type.
    pub(super) fn text<T, E: Display>(
        &mut self,
        name: &str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Result<Option<T>, ApiError> {
        let text: Option<String> = self.value(name, "must be a text")?;
        text.map(|text| parse(&text)).transpose().map_err(|e| self.error(name, e))
    }

    /// A text that may be left out, which is `None`, or `null`, which is `Some(None)`.
    pub(super) fn nullable_text<T, E: Display>(
        &mut self,
        name: &str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Result<Option<Option<T>>, ApiError> {
        if self.map.get(name).is_some_and(|value| value.get() == "null") {
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
        self.value(name, "must be true or false")
    }

    /// The settings of an app, those changed that are named here.
    pub(super) fn settings(&mut self, mut settings: AppSettings) -> Result<AppSettings, ApiError> {
        let mut all = serde_json::to_value(&settings).map_err(|_| ApiError::internal())?;
        let names = all.as_object().into_iter().flat_map(Map::keys);
        for name in names.cloned().collect::<Vec<_>>() {
            let Some(given) = self.value(&name, "is not valid JSON")? else { continue };
            all[name.as_str()] = given;
            settings = AppSettings::deserialize(&all).map_err(|e| self.error(&name, e))?;
        }
        Ok(settings)
    }

    /// A list of at most so many objects that must be there, each read into its type.
    pub(super) fn objects<T>(
        &mut self,
        name: &str,
        most: usize,
        read: impl Fn(&mut Self) -> Result<T, ApiError>,
    ) -> Result<Vec<T>, ApiError> {
        let list: Option<Vec<Box<RawValue>>> = self.value(name, "must be a list")?;
        let list = list.ok_or_else(|| self.error(name, Invalid("is missing")))?;
        if list.len() > most {
            return Err(self.error(name, format!("holds too many entries: at most {most}")));
        }
        let objects = list.iter().enumerate().map(|(at, entry)| {
            let mut fields = Self::nested(entry, &format!("{name}[{at}]"))?;
            let value = read(&mut fields)?;
            fields.finish().map(|()| value)
        });
        objects.collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_names_nothing_twice_wherever_it_stands() {
        let of =
            |text: &str| Fields::of(text.as_bytes()).map(|_| ()).unwrap_err().message.into_owned();
        for other in
            [r#"{"a":1,"a":1}"#, r#"{"a":1,"\u0061":2}"#, "[]", r#""hunter2""#, "3", "null"]
        {
            assert_eq!(of(other), "the body must be a JSON object that names nothing twice");
        }
        for broken in ["", "{", r#"{"a":}"#, "{} {}", &"[".repeat(100_000), r#"{"a":[1}"#] {
            assert!(of(broken).starts_with("the body "), "{broken}");
        }
        let mut fields = Fields::of(br#"{"a":[{"b":1,"c":2,"b":3}],"\u0062":"\u00e4"}"#).unwrap();
        assert!(fields.objects("a", 9, |_| Ok(())).is_err());
        assert_eq!(
            fields.text("b", |text| Ok::<_, Invalid>(text.to_owned())).unwrap().unwrap(),
            "ä"
        );
        assert!(fields.finish().is_ok());
    }
}
