//! The description of the API.

use serde_json::Value;

pub const SPEC: &str = include_str!("../../../assets/openapi.json");

pub fn spec() -> Value {
    serde_json::from_str(SPEC).expect("JSON")
}

pub fn resolved<'a>(spec: &'a Value, schema: &'a Value) -> &'a Value {
    match schema["$ref"].as_str() {
        Some(reference) => resolved(spec, spec.pointer(&reference[1..]).expect("a target")),
        None => schema,
    }
}
