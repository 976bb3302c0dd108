//! What the router itself says to a visitor.

use serde_json::{Value, json};

/// The handler that answers with a line of text.
pub fn page(status: u16, text: &str) -> Value {
    json!({
        "handler": "static_response",
        "status_code": status,
        "headers": {
            "Content-Type": ["text/plain; charset=utf-8"],
            "Cache-Control": ["no-store"],
        },
        "body": format!("{text}\n"),
    })
}
