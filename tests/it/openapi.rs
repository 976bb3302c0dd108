//! The API's description and the API are the same thing, and no request that follows from it breaks the server.

use crate::harness::apps::{PLAIN, create, deploy_live};
use crate::harness::spec::{resolved, routes, spec};
use crate::harness::{GitServer, Http, Server, Setup, Ws, a_token};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

const METHODS: [&str; 5] = ["GET", "POST", "PUT", "PATCH", "DELETE"];

/// The described operations: method and path with `{}` for each parameter.
fn described() -> BTreeSet<(String, String)> {
    let spec = spec();
    let mut all = BTreeSet::new();
    for (path, operations) in spec["paths"].as_object().expect("paths") {
        for method in operations.as_object().expect("operations").keys() {
            let upper = method.to_uppercase();
            if METHODS.contains(&upper.as_str()) {
                all.insert((upper, without_names(path)));
            }
        }
    }
    all
}

fn without_names(path: &str) -> String {
    let part = |p: &str| if p.starts_with('{') { "{}".to_owned() } else { p.to_owned() };
    path.split('/').map(part).collect::<Vec<_>>().join("/")
}

#[test]
fn the_description_and_the_route_table_name_the_same_operations() {
    let mut routed = routes();
    assert!(routed.len() > 20, "the table was not found: {routed:?}");
    routed.insert(("GET".to_owned(), "/healthz".to_owned()));
    assert_eq!(described(), routed);
}

/// The targets of all references.
fn references<'a>(value: &'a Value, found: &mut BTreeSet<&'a str>) {
    match value {
        Value::Object(fields) => {
            found.extend(fields.get("$ref").and_then(Value::as_str));
            fields.values().for_each(|value| references(value, found));
        }
        Value::Array(entries) => entries.iter().for_each(|value| references(value, found)),
        _ => {}
    }
}

#[test]
fn every_reference_leads_to_something_and_nothing_is_there_without_one() {
    let (spec, mut found) = (spec(), BTreeSet::new());
    references(&spec, &mut found);
    let mut there = BTreeSet::new();
    for (kind, components) in spec["components"].as_object().expect("components") {
        if kind != "securitySchemes" {
            let names = components.as_object().expect("components").keys();
            there.extend(names.map(|name| format!("#/components/{kind}/{name}")));
        }
    }
    assert_eq!(found, there.iter().map(String::as_str).collect());
}

#[test]
fn every_described_operation_is_answered_and_every_other_method_is_refused() {
    let server = Server::start();
    let (mut owner, mut stranger) = (server.owner(), server.stranger());
    let mut by_path: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (method, path) in described() {
        by_path.entry(path).or_default().insert(method);
    }
    for (path, methods) in by_path {
        let target = path.replace("{}", "aaaaaaaaaa");
        for method in METHODS {
            if (method, path.as_str()) == ("POST", "/api/security/rotate-token") {
                continue; // it is answered in the tests of the token
            }
            let answer = owner.request(method, &target, Some(b"{}"));
            let known = answer.status != 405 && !answer.text().contains("\"not_found\"");
            assert_eq!(known, methods.contains(method), "{method} {path}: {}", answer.text());
            if !known {
                let allow: BTreeSet<String> =
                    answer.header("allow").expect("Allow").split(", ").map(str::to_owned).collect();
                assert_eq!(allow, methods, "{path}");
            }
            if (method, path.as_str()) == ("POST", "/api/hooks/{}") {
                // A door of its own: it asks for a signature, see the tests of webhooks.
                assert_eq!(answer.expect(401).code(), "signature_wrong");
            } else if path.starts_with("/api") {
                let refused = stranger.request(method, &target, Some(b"{}")).expect(401);
                assert!(
                    refused.header("www-authenticate").is_some_and(|h| h.starts_with("Bearer"))
                );
            }
        }
    }
    assert_eq!(owner.get("/api/openapi.json").expect(200).json(), spec());
}

/// The arms of the sockets' table: `["", "ws", "deploys", id] =>`.
fn sockets() -> BTreeSet<String> {
    let source = include_str!("../../src/live.rs");
    let arms = source.lines().filter_map(|line| line.trim().strip_prefix("[\"\", "));
    let part = |p: &str| match p.strip_prefix('"') {
        Some(word) => format!("/{}", word.trim_end_matches('"')),
        None => "/{}".to_owned(),
    };
    let path = |arm: &str| Some(arm.split_once("] =>")?.0.split(", ").map(part).collect());
    arms.filter_map(path).collect()
}

/// Whether a value is as a schema says: types, words, fields, entries.
fn fits(spec: &Value, schema: &Value, value: &Value) -> bool {
    let schema = resolved(spec, schema);
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(n) if n.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let types = &schema["type"];
    let may_be = |kind: &str| {
        types == kind || types.as_array().is_some_and(|all| all.iter().any(|t| t == kind))
    };
    let typed = types.is_null() || may_be(kind) || (kind == "integer" && may_be("number"));
    let word = schema["enum"].as_array().is_none_or(|words| words.contains(value));
    let fields = value.as_object().is_none_or(|object| {
        let known = |name: &str| schema["properties"].get(name);
        let mut required = schema["required"].as_array().into_iter().flatten();
        required.all(|name| object.contains_key(name.as_str().expect("a name")))
            && object.iter().all(|(name, value)| match known(name) {
                Some(inner) => fits(spec, inner, value),
                None => schema["additionalProperties"] != false,
            })
    });
    let entries = value.as_array().is_none_or(|entries| {
        let least = schema["minItems"].as_u64().unwrap_or(0);
        entries.len() as u64 >= least && entries.iter().all(|e| fits(spec, &schema["items"], e))
    });
    typed && word && fields && entries
}

#[test]
fn the_websockets_send_what_their_description_says_and_there_are_no_others() {
    let spec = spec();
    let described = spec["x-websockets"]["paths"].as_object().expect("paths");
    assert_eq!(described.keys().map(|p| without_names(p)).collect::<BTreeSet<_>>(), sockets());
    let git = GitServer::start();
    git.commit("plain", &PLAIN);
    let server = Setup::new().as_user().start();
    let mut owner = server.owner();
    let app = create(&mut owner, &json!({"name": "plain", "gitRepo": git.url("plain")}));
    let deploy = deploy_live(&mut owner, &app);
    let run = json!({"command": "echo one"});
    let run = owner.post(&format!("/api/apps/{app}/run"), &run).expect(202).json();
    let run = run["id"].as_str().expect("an id").to_owned();
    for (path, socket) in described {
        let id = match path.split('/').nth(2) {
            Some("deploys") => &deploy,
            Some("runs") => &run,
            _ => &app,
        };
        let target = format!("{}?token={}", path.replace("{id}", id), server.token());
        let mut session = Ws::at(server.address(), &target).open().expect("a session");
        let messages = socket["messages"].as_array().expect("messages");
        let kind_of = |message: &Value| {
            let kind = messages.iter().position(|schema| fits(&spec, schema, message));
            kind.unwrap_or_else(|| panic!("{path} does not describe {message}"))
        };
        let mut seen = BTreeSet::new();
        while seen.len() < messages.len() {
            let next = session.next(Duration::from_secs(20));
            seen.insert(kind_of(&next.expect("one of each kind that is described")));
        }
        for example in socket["examples"].as_array().expect("examples") {
            kind_of(example);
        }
        // What is described is not everything.
        assert!(!messages.iter().any(|schema| fits(&spec, schema, &json!({"surprise": 1}))));
    }
}

/// A small generator of numbers (xorshift64*): a failure is repeated with its seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let high = self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33;
        usize::try_from(high).expect("31 bits") % below
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.roll(from.len())]
    }
}

/// Texts that have broken other programs, and plain ones.
fn hostile_text(dice: &mut Dice) -> String {
    let fixed = [
        "",
        " ",
        "a",
        "-",
        "--upload-pack=id",
        "../../etc/passwd",
        "a\0b",
        "a\r\nX-Y: z",
        "\u{202e}x",
        "😀",
        "'; DROP TABLE apps; --",
        "%00",
        "%2e%2e",
        "null",
        "true",
        "1e999",
        "ext::sh -c id",
        "file:///etc/passwd",
        "https://u:p@h/r",
        "$(id)",
        "`id`",
        "<script>alert(1)</script>",
        "\u{feff}",
        "\u{1b}[2J",
    ];
    match dice.roll(4) {
        0 => "x".repeat(*dice.pick(&[41, 201, 501, 2001, 40_000])),
        1 => (0..dice.roll(30))
            .map(|_| char::from_u32(u32::try_from(dice.roll(0x2ff)).unwrap()).unwrap_or('?'))
            .collect(),
        _ => (*dice.pick(&fixed)).to_owned(),
    }
}

/// A value of no matter what type.
fn anything(dice: &mut Dice) -> Value {
    match dice.roll(9) {
        0 => Value::Null,
        1 => json!(true),
        2 => json!(-1),
        3 => json!(i64::MAX),
        4 => json!(1.5),
        5 => json!([]),
        6 => json!({"a": {"b": [1, null]}}),
        7 => json!([[[[["deep"]]]]]),
        _ => json!(hostile_text(dice)),
    }
}

/// A value after the schema, most of the time.
fn from_schema(spec: &Value, schema: &Value, name: &str, dice: &mut Dice) -> Value {
    let schema = resolved(spec, schema);
    if dice.roll(6) == 0 {
        return anything(dice);
    }
    let kind = schema["type"].as_str().or_else(|| schema["type"][0].as_str()).unwrap_or("");
    match kind {
        "object" => {
            let mut object = Map::new();
            let required: Vec<&str> = schema["required"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
                .collect();
            let properties = schema["properties"].as_object();
            // All of many would never be well at once.
            let many = properties.map_or(0, Map::len).max(3);
            for (name, inner) in properties.into_iter().flatten() {
                if dice.roll(many) < 2 || (required.contains(&name.as_str()) && dice.roll(8) > 0) {
                    object.insert(name.clone(), from_schema(spec, inner, name, dice));
                }
            }
            if dice.roll(12) == 0 {
                object.insert(hostile_text(dice), anything(dice));
            }
            Value::Object(object)
        }
        "array" => {
            (0..dice.roll(4)).map(|_| from_schema(spec, &schema["items"], name, dice)).collect()
        }
        "integer" => json!(dice.roll(700)),
        "boolean" => json!(dice.roll(2) == 0),
        // A repository that the tests may reach: nobody listens there.
        _ if name == "gitRepo" => match dice.roll(3) {
            0 => json!(hostile_text(dice)),
            _ => json!(format!("http://127.0.0.1:1/r{}.git", dice.roll(20))),
        },
        _ if name == "name" => json!(format!("n{}", dice.roll(40))),
        _ => match dice.roll(3) {
            0 => json!(hostile_text(dice)),
            _ => schema.get("example").cloned().unwrap_or_else(|| json!("value")),
        },
    }
}

fn escaped(text: &str) -> String {
    text.bytes()
        .map(|b| {
            if b.is_ascii_alphanumeric() { char::from(b).to_string() } else { format!("%{b:02X}") }
        })
        .collect()
}

fn target(spec: &Value, path: &str, operation: &Value, ids: &[String], dice: &mut Dice) -> String {
    let mut target = String::new();
    for part in path.split('/').skip(1) {
        let filled = match (part.starts_with('{'), dice.roll(5)) {
            (false, _) => part.to_owned(),
            (true, 0) => escaped(&hostile_text(dice)),
            (true, 1) => "aaaaaaaaaa".to_owned(),
            (true, _) if ids.is_empty() => "bbbbbbbbbb".to_owned(),
            (true, _) => dice.pick(ids).clone(),
        };
        target.push('/');
        target.push_str(&filled);
    }
    let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
    for (i, parameter) in parameters.iter().map(|p| resolved(spec, p)).enumerate() {
        if parameter["in"] == "query" && dice.roll(2) == 0 {
            let value = from_schema(spec, &parameter["schema"], "", dice);
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            target.push(if i == 0 { '?' } else { '&' });
            target.push_str(&format!(
                "{}={}",
                parameter["name"].as_str().unwrap_or("x"),
                escaped(&text)
            ));
        }
    }
    // The gate takes targets of up to 8 KiB; longer ones are its own business.
    target.truncate(6000);
    target
}

/// One request after the description, or nearly; its answer must be one that the description has.
fn one_request(spec: &Value, owner: &mut Http, ids: &mut Vec<String>, dice: &mut Dice) {
    let paths: Vec<(&String, &Value)> = spec["paths"].as_object().expect("paths").iter().collect();
    let (path, operations) = *dice.pick(&paths);
    let methods: Vec<(&String, &Value)> = operations
        .as_object()
        .expect("operations")
        .iter()
        .filter(|(m, _)| METHODS.contains(&m.to_uppercase().as_str()))
        .collect();
    let (method, operation) = *dice.pick(&methods);
    let method = method.to_uppercase();
    let target = target(spec, path, operation, ids, dice);
    let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
    let body = match (schema.is_null(), dice.roll(20)) {
        (_, 0) => Some(hostile_text(dice).into_bytes()),
        (true, _) => None,
        (false, _) => Some(from_schema(spec, schema, "", dice).to_string().into_bytes()),
    };
    let answer = owner.request(&method, &target, body.as_deref());
    let told = || {
        format!(
            "{method} {target}\n{}\n{}",
            String::from_utf8_lossy(body.as_deref().unwrap_or(b"")),
            answer.text()
        )
    };
    assert!(answer.status < 500, "{} for {}", answer.status, told());
    let documented = &operation["responses"];
    let known =
        documented[answer.status.to_string()].is_object() || documented["default"].is_object();
    assert!(known, "{} is not described for {}", answer.status, told());
    if answer.status >= 400 {
        assert!(!answer.code().is_empty() && !answer.message().is_empty(), "{}", told());
    }
    if answer.status == 201 {
        ids.push(answer.json()["id"].as_str().expect("an id").to_owned());
    } else if answer.status == 202 && ids.len() < 50 {
        ids.extend(answer.json()["deploy"]["id"].as_str().map(str::to_owned));
    }
}

#[test]
fn a_fuzz_of_the_api_from_its_own_description_finds_no_5xx() {
    let spec = spec();
    let server = Setup::new().as_user().token(&a_token()).start();
    let mut owner = server.owner();
    for seed in [1, 2, 3] {
        let mut dice = Dice(0x9E37_79B9_7F4A_7C15_u64.wrapping_mul(seed));
        let mut ids = Vec::new();
        for _ in 0..800 {
            one_request(&spec, &mut owner, &mut ids, &mut dice);
        }
        assert!(!ids.is_empty(), "seed {seed} made no app");
    }
    assert!(!server.log().contains("panicked"), "{}", server.log());
}
