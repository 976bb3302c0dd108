//! The API's description and the server draw the same line: what lies just inside of a schema is taken, and what lies
//! just outside is refused.

use crate::harness::apps::create;
use crate::harness::spec::{resolved, spec};
use crate::harness::{Answer, Http, Server};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::io::Write as _;
use std::process::{Command, Stdio};

/// What is put into an example, at several places: bits that have a meaning somewhere, and characters of all kinds.
const BITS: [&str; 66] = [
    "!", "\"", "#", "$", "%", "&", "'", "(", "*", "+", ",", "-", ".", "/", "0", "9", ":", ";", "<",
    "=", "?", "@", "A", "Z", "[", "\\", "]", "^", "_", "`", "a", "z", "{", "|", "~", " ", "\0",
    "\t", "\n", "\r", "\u{1b}", "\u{7f}", "\u{85}", "\u{a0}", "\u{2028}", "ä", "😀", "..", "//",
    "/./", "/../", "./", "/.git/", ".git", ".lock", "@{", "://", "user@", ":0", ":65535", ":65536",
    ":00080", ".0x1", ".1", "/a", ".b",
];

/// Texts that have a meaning of their own.
const WORDS: [&str; 42] = [
    "",
    "-",
    "@",
    "/",
    ".",
    "..",
    "a",
    "A",
    "PORT",
    "port",
    "_",
    "a.b",
    "a.b.c",
    "1.2.3.4",
    "a.0x1",
    "a.1x",
    "/run",
    "/run/",
    "/run/systemd",
    "/run/systemd/x",
    "/run/systemdx",
    "/var/run/docker",
    "/run/.x",
    "/run/...",
    "/run/a/..",
    ".git",
    "\u{2028}/../x",
    "x/.git",
    "x/.gitx",
    "https://[::1]/r",
    "https://[1:2:3:4:5:6:7:8]/r",
    "https://[:::]/r",
    "https://[1:2:3:4:5:6:7::8]/r",
    "https://[1::2::3]/r",
    "https://[12345::]/r",
    "https://[.]/r",
    "https://[::]:99999/r",
    "http://h:65535/r",
    "http://h:65536/r",
    "HTTP://H/r",
    "http://h//",
    "http://h/.../r",
];

/// Texts around the line that a schema for texts draws.
fn texts(schema: &Value) -> Vec<String> {
    let example = schema["example"].as_str().unwrap_or("value");
    let mut all: Vec<String> = WORDS.iter().map(|&word| word.to_owned()).collect();
    all.push(example.to_owned());
    let after = example.find(['/', '.', ':']).map_or(1, |at| at + 1);
    for bit in BITS {
        for at in [0, after, example.rfind('.').unwrap_or(1), example.len()] {
            let (before, behind) = example.split_at(at);
            all.push(format!("{before}{bit}{behind}"));
        }
    }
    let least = schema["minLength"].as_u64().unwrap_or(0);
    let most = schema["maxLength"].as_u64().unwrap_or(0);
    for length in [least.saturating_sub(1), least, most, most + 1, 62, 63, 64, 65] {
        let length = usize::try_from(length).expect("a length");
        all.push("a".repeat(length));
        // Parts that are as short as names of files and hosts are.
        for part in ["/a", ".a"] {
            let more = part.repeat(length.saturating_sub(example.len()).div_ceil(2));
            all.push(format!("{example}{more}").chars().take(length).collect());
        }
    }
    for label in [63, 64, 253, 254, 255] {
        let hosts = [format!("{}.de", "a".repeat(label)), format!("de.{}", "a".repeat(label))];
        let dotted: String = "a.".repeat(label).chars().take(label).collect();
        for host in hosts.into_iter().chain([dotted]) {
            all.push(format!("http://{host}/r"));
            all.push(host);
        }
    }
    all.sort_unstable();
    all.dedup();
    all
}

/// Values around the line that a schema draws.
fn values(spec: &Value, schema: &Value) -> Vec<Value> {
    let schema = resolved(spec, schema);
    let mut all =
        vec![Value::Null, json!(true), json!(7), json!(1.5), json!("text"), json!([]), json!({})];
    let types = &schema["type"];
    if types == "integer" {
        let mut bounds: Vec<i64> =
            ["minimum", "maximum"].iter().filter_map(|b| schema[b].as_i64()).collect();
        let alternatives = schema["anyOf"].as_array().into_iter().flatten();
        bounds.extend(
            alternatives.flat_map(|a| [&a["minimum"], &a["const"]]).filter_map(Value::as_i64),
        );
        all.extend(bounds.iter().flat_map(|b| [b - 1, *b, b + 1]).map(Value::from));
        all.extend([json!(i64::MAX), json!(i64::MIN), json!(u64::MAX)]);
    } else if types == "array" {
        let items = resolved(spec, &schema["items"]);
        all.extend(texts(items).into_iter().map(|text| json!([text])));
        let example = items["example"].as_str().expect("an example");
        let most = schema["maxItems"].as_u64().expect("a bound");
        let many = |count| (0..count).map(|n| json!(format!("{example}{n}"))).collect::<Value>();
        all.extend([many(most), many(most + 1), json!([example, example]), json!([example, 1])]);
    } else if types == "string" || types.is_array() {
        all.extend(texts(schema).into_iter().map(Value::from));
    }
    all
}

/// Which texts fit which patterns: judged by Python, whose expressions of these forms mean what ECMA-262's do.
struct Patterns(HashMap<(String, String), bool>);

impl Patterns {
    fn asked(mut pairs: Vec<(String, String)>) -> Self {
        const JUDGE: &str = "import json, re, sys\n\
            json.dump([re.fullmatch(p, t) is not None for p, t in json.load(sys.stdin)], sys.stdout)";
        pairs.sort_unstable();
        pairs.dedup();
        let mut python = Command::new("python3");
        python.args(["-c", JUDGE]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut python = python.spawn().expect("python3");
        let question = serde_json::to_vec(&pairs).expect("JSON");
        python.stdin.take().expect("piped").write_all(&question).expect("taken");
        let output = python.wait_with_output().expect("an end");
        let answers: Vec<bool> = serde_json::from_slice(&output.stdout).expect("answers");
        Self(pairs.into_iter().zip(answers).collect())
    }

    /// Whether a schema takes a value.
    fn take(&self, spec: &Value, schema: &Value, value: &Value) -> bool {
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
        let any = |all: &Value, fits: &dyn Fn(&Value) -> bool| {
            all.as_array().is_none_or(|all| all.iter().any(fits))
        };
        let within = |number: &Value, least: &str, most: &str| {
            let least = schema[least].as_f64().unwrap_or(f64::MIN);
            let most = schema[most].as_f64().unwrap_or(f64::MAX);
            number.as_f64().is_none_or(|number| (least..=most).contains(&number))
        };
        let length = value.as_str().map_or(Value::Null, |text| json!(text.chars().count()));
        let count = value.as_array().map_or(Value::Null, |entries| json!(entries.len()));
        let pattern = |pattern: &str, text: &str| self.0[&(pattern.to_owned(), text.to_owned())];
        let required = schema["required"].as_array().into_iter().flatten();
        let mut required = required.filter_map(Value::as_str);
        let field = |(name, inner): (&String, &Value)| {
            value.get(name).is_none_or(|value| self.take(spec, inner, value))
        };
        let entries = value.as_array().into_iter().flatten();
        let twice = |(at, entry): (usize, &Value)| {
            value.as_array().is_some_and(|v| v[..at].contains(entry))
        };
        (types.is_null() || types == kind || any(types, &|t| t == kind) && types.is_array())
            && schema.get("const").is_none_or(|only| only == value)
            && any(&schema["enum"], &|word| word == value)
            && any(&schema["anyOf"], &|schema| self.take(spec, schema, value))
            && required.all(|name| value.get(name).is_some())
            && schema["properties"].as_object().into_iter().flatten().all(field)
            && within(value, "minimum", "maximum")
            && within(&length, "minLength", "maxLength")
            && within(&count, "minItems", "maxItems")
            && schema["pattern"].as_str().zip(value.as_str()).is_none_or(|(p, t)| pattern(p, t))
            && entries.clone().all(|entry| self.take(spec, &schema["items"], entry))
            && !(schema["uniqueItems"] == true && entries.enumerate().any(twice))
    }
}

/// The pairs of a pattern and a text that judging a value takes.
fn pairs(spec: &Value, schema: &Value, value: &Value, found: &mut Vec<(String, String)>) {
    let schema = resolved(spec, schema);
    if let (Some(pattern), Some(text)) = (schema["pattern"].as_str(), value.as_str()) {
        found.push((pattern.to_owned(), text.to_owned()));
    }
    value.as_array().into_iter().flatten().for_each(|v| pairs(spec, &schema["items"], v, found));
}

/// Tries all values around the line of a schema; `send` puts one into a request. Answers
/// where server and schema differ.
fn tried(
    spec: &Value,
    name: &str,
    schema: &Value,
    send: &mut dyn FnMut(&Value) -> Answer,
) -> Vec<String> {
    let (values, mut asked) = (values(spec, schema), Vec::new());
    values.iter().for_each(|value| pairs(spec, schema, value, &mut asked));
    let patterns = Patterns::asked(asked);
    let (mut inside, mut wrong) = (0, Vec::new());
    for value in &values {
        let takes = patterns.take(spec, schema, value);
        inside += usize::from(takes);
        let answer = send(value);
        assert!(answer.status < 500, "{name}: {value}: {}", answer.text());
        if takes != (answer.status != 400) {
            let shown: String = value.to_string().chars().take(120).collect();
            wrong.push(format!(
                "{name}: {shown} is {takes} by the schema, and answered {}",
                answer.status
            ));
        }
    }
    assert!((1..values.len()).contains(&inside), "{name}: {inside} of {}", values.len());
    wrong
}

/// The fields of an operation's body.
fn fields<'a>(spec: &'a Value, path: &str, method: &str) -> &'a serde_json::Map<String, Value> {
    let body = &spec["paths"][path][method]["requestBody"]["content"]["application/json"]["schema"];
    let schema = resolved(spec, body);
    assert_eq!(schema["additionalProperties"], false, "{method} {path}");
    schema["properties"].as_object().expect("fields")
}

fn an_app(owner: &mut Http) -> String {
    create(owner, &json!({"name": "shop", "gitRepo": "http://127.0.0.1:1/shop.git"}))
}

#[test]
fn the_settings_of_an_app_are_checked_as_their_schemas_say() {
    let spec = spec();
    let server = Server::start();
    let mut owner = server.owner();
    let path = format!("/api/apps/{}", an_app(&mut owner));
    let changes = fields(&spec, "/api/apps/{id}", "patch");
    let mut wrong = Vec::new();
    for (name, schema) in changes {
        let mut send = |value: &Value| owner.patch(&path, &json!({name: value}));
        wrong.extend(tried(&spec, name, schema, &mut send));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    // The other two that have them have the same.
    for other in ["/api/apps", "/api/deploy"] {
        for (name, schema) in fields(&spec, other, "post") {
            assert_eq!(schema["$ref"], changes[name]["$ref"], "{other}: {name}");
        }
    }
}

#[test]
fn variables_jobs_tokens_and_identifiers_are_checked_as_their_schemas_say() {
    let spec = spec();
    let server = Server::start();
    let mut owner = server.owner();
    let app = format!("/api/apps/{}", an_app(&mut owner));
    let env = format!("{app}/env");
    let variable = &spec["components"]["schemas"]["EnvVar"];
    let name = &variable["properties"]["name"];
    let mut wrong = tried(&spec, "env name", name, &mut |name| {
        owner.put(&env, &json!({"env": [{"name": name, "value": "x"}]}))
    });
    let value = &variable["properties"]["value"];
    wrong.extend(tried(&spec, "env value", value, &mut |value| match value {
        // A field that is null counts as one that was left out.
        Value::Null => owner.put(&env, &json!({"env": [{"name": "NEW"}]})),
        value => owner.put(&env, &json!({"env": [{"name": "A", "value": value}]})),
    }));
    owner.put(&env, &json!({"env": [{"name": "A", "value": "x", "secret": true}]})).expect(200);
    for given in [
        json!({"name": "A"}),
        json!({"name": "A", "secret": false}),
        json!({"name": "A", "secret": true}),
        json!({"name": "A", "value": "x"}),
        json!({"value": "x"}),
    ] {
        let mut asked = Vec::new();
        for (field, schema) in variable["properties"].as_object().expect("fields") {
            pairs(&spec, schema, &given[field], &mut asked);
        }
        let takes = Patterns::asked(asked).take(&spec, variable, &given);
        let answer = owner.put(&env, &json!({"env": [given]}));
        assert_eq!(takes, answer.status == 200, "{given}: {}", answer.text());
    }
    let job = &spec["components"]["schemas"]["OwnJob"]["properties"];
    for field in ["name", "command"] {
        wrong.extend(tried(&spec, &format!("job {field}"), &job[field], &mut |value| {
            let mut job = json!({"name": "tidy", "command": "true", "schedule": "@daily"});
            job[field] = value.clone();
            owner.put(&format!("{app}/jobs"), &json!({"jobs": [job]}))
        }));
    }
    let token = &fields(&spec, "/api/settings/github-token", "put")["token"];
    wrong.extend(tried(&spec, "token", token, &mut |token| {
        owner.put("/api/settings/github-token", &json!({"token": token}))
    }));
    let deploy = &fields(&spec, "/api/apps/{id}/rollback", "post")["deployId"];
    wrong.extend(tried(&spec, "deployId", deploy, &mut |id| {
        owner.post(&format!("{app}/rollback"), &json!({"deployId": id}))
    }));
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn parameters_of_paths_and_queries_are_checked_as_their_schemas_say() {
    let spec = spec();
    let server = Server::start();
    let mut owner = server.owner();
    let app = format!("/api/apps/{}", an_app(&mut owner));
    for (path, at) in [("/api/apps/{id}/deploys", 1), ("/api/apps/{id}/log", 0)] {
        let parameter = &spec["paths"][path]["get"]["parameters"][at];
        let (name, kind) =
            (parameter["name"].as_str().expect("a name"), path.replace("/api/apps/{id}", ""));
        for (number, status) in [("0", 400), ("1", 200), ("x", 400)] {
            owner.get(&format!("{app}{kind}?{name}={number}")).expect(status);
        }
        let most = parameter["schema"]["maximum"].as_u64().expect("a bound");
        owner.get(&format!("{app}{kind}?{name}={most}")).expect(200);
        owner.get(&format!("{app}{kind}?{name}={}", most + 1)).expect(400);
    }
    let client =
        resolved(&spec, &spec["paths"]["/api/security/lockouts/{client}"]["parameters"][0]);
    let mut asked = Vec::new();
    let clients = [
        "192.0.2.7",
        "192.0.2.256",
        "192.0.2",
        "192.0.2.07",
        "192.0.2.7/64",
        "::",
        "::1",
        "1::",
        "1::2/64",
        "1::2/63",
        "1:2:3:4:5:6:7:8",
        "1:2:3:4:5:6:7",
        "1:2:3:4:5:6:7:8:9",
        "1:2:3:4:5:6:7::",
        "1:2:3:4:5:6:7::8",
        ":1",
        "1:",
        ":::",
        "1::2::3",
        "12345::",
        "g::",
        "",
        ".",
    ];
    for text in clients {
        pairs(&spec, &client["schema"], &json!(text), &mut asked);
    }
    let patterns = Patterns::asked(asked);
    for text in clients.into_iter().filter(|text| !text.is_empty()) {
        let status = if patterns.take(&spec, &client["schema"], &json!(text)) { 404 } else { 400 };
        let path = format!("/api/security/lockouts/{}", text.replace('/', "%2F"));
        assert_eq!(owner.delete(&path).status, status, "{text}");
    }
}
