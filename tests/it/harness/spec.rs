//! The description of the API.

use serde_json::Value;
use std::collections::BTreeSet;

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

/// The arms of the route table, read from its source: `("GET", ["apps", id]) =>`.
pub fn routes() -> BTreeSet<(String, String)> {
    let source = include_str!("../../../src/api.rs");
    let arms = source.lines().filter_map(|line| line.trim().strip_prefix("(\""));
    arms.filter_map(|arm| {
        let (method, rest) = arm.split_once("\", [")?;
        let (path, _) = rest.split_once("]) =>")?;
        let part = |p: &str| {
            p.trim().strip_prefix('"').map_or("{}", |p| p.trim_end_matches('"')).to_owned()
        };
        let path: Vec<String> = path.split(',').map(part).collect();
        Some((method.to_owned(), format!("/api/{}", path.join("/"))))
    })
    .collect()
}
