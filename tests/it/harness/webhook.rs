//! Deliveries of Git hosts.

use super::apps::create;
use super::{Answer, Http, hex, random};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;

/// Fields of a delivery.
pub type Headers = Vec<(&'static str, String)>;

pub const GITHUB: &str = include_str!("../fixtures/hooks/github.json");

/// Nobody listens there: a deploy of it ends quickly.
pub const NOWHERE: &str = "http://127.0.0.1:1/acme/shop.git";

pub fn hmac(key: &[u8], message: &[u8]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("any length");
    mac.update(message);
    mac.finalize().into_bytes().to_vec()
}

pub fn an_id() -> String {
    hex(&random::<16>())
}

/// As GitHub sends an event.
pub fn github(secret: &str, event: &'static str, body: &str) -> Headers {
    vec![
        ("X-GitHub-Event", event.to_owned()),
        ("X-GitHub-Delivery", an_id()),
        (
            "X-Hub-Signature-256",
            format!("sha256={}", hex(&hmac(secret.as_bytes(), body.as_bytes()))),
        ),
    ]
}

pub fn deliver(mut host: Http, app: &str, headers: &Headers, body: &str) -> Answer {
    for (name, value) in headers {
        host = host.also(name, value);
    }
    host.request("POST", &format!("/api/hooks/{app}"), Some(body.as_bytes()))
}

pub fn an_app(owner: &mut Http, name: &str, fields: &Value) -> (String, String) {
    let mut body = json!({"name": name, "gitRepo": NOWHERE, "branch": "main"});
    body.as_object_mut()
        .expect("an object")
        .extend(fields.as_object().cloned().expect("an object"));
    let app = create(owner, &body);
    let answer =
        owner.request("POST", &format!("/api/apps/{app}/webhook"), None).expect(200).json();
    assert_eq!(answer["path"], format!("/api/hooks/{app}"));
    (app, answer["secret"].as_str().expect("a secret").to_owned())
}
