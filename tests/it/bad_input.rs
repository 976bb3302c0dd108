//! Bad input gets a 4xx that names the field, and nothing is stored.

use crate::harness::{Http, Server};
use serde_json::{Value, json};

const GOOD_REPO: &str = "http://127.0.0.1:1/owner/app.git";

#[track_caller]
fn refused(owner: &mut Http, method: &str, path: &str, body: &Value, field: &str) {
    let bytes = body.to_string();
    let answer = owner.request(method, path, Some(bytes.as_bytes()));
    let shown: String = bytes.chars().take(120).collect();
    assert_eq!(answer.status, 400, "{shown}: {}", answer.text());
    assert!(answer.message().contains(field), "{shown}: {}", answer.message());
    assert_eq!(answer.json()["error"]["field"], field, "{shown}");
}

fn with(field: &str, value: &Value) -> Value {
    let mut app = json!({"name": "fresh", "gitRepo": GOOD_REPO});
    app[field] = value.clone();
    app
}

/// Bad values of the fields that say where an app comes from and how it runs.
fn where_from_and_how() -> Vec<(&'static str, Vec<Value>)> {
    let long = json!("x".repeat(3000));
    vec![
        (
            "name",
            vec![
                json!(1),
                json!(null),
                json!(""),
                json!("A"),
                json!("-a"),
                json!("a b"),
                json!("a\u{0}"),
                long.clone(),
            ],
        ),
        (
            "gitRepo",
            vec![
                json!(5),
                json!(""),
                json!("ext::sh -c id"),
                json!("file:///etc"),
                json!("--upload-pack=id"),
                json!("https://user:password@host/r"),
                json!("ssh://git@host/r"),
                json!("git@host:o/r"),
                json!("https://h/a b"),
                json!("https://h/a\nb"),
                long.clone(),
            ],
        ),
        (
            "branch",
            vec![
                json!([]),
                json!("-x"),
                json!("a b"),
                json!("a\u{7}"),
                json!("a..b"),
                long.clone(),
            ],
        ),
        ("gitToken", vec![json!(7), json!(""), json!("two words"), json!("a\nb"), long.clone()]),
        ("rootDir", vec![json!({}), json!("//etc"), json!("../x"), json!("a\u{0}b"), long.clone()]),
        ("buildCommand", vec![json!(true), json!("a\nb"), json!("a\u{1b}b"), long.clone()]),
        ("startCommand", vec![json!(1.5), json!("a\rb"), long.clone()]),
        ("healthPath", vec![json!(0), json!("healthz"), json!("/a b"), json!("/a\r\nb"), long]),
        (
            "healthTimeoutSeconds",
            vec![json!("60"), json!(0), json!(-5), json!(601), json!(1.5), json!(1e30)],
        ),
        ("surprise", vec![json!(1)]),
    ]
}

/// Bad values of the fields that say what an app may have and be reached at.
fn what_it_may() -> Vec<(&'static str, Vec<Value>)> {
    vec![
        (
            "domains",
            vec![
                json!("a.example"),
                json!([1]),
                json!(["localhost"]),
                json!(["127.0.0.1"]),
                json!(["*.example.com"]),
                json!(["https://a.example"]),
                json!(["a.example", "A.example"]),
                json!(["{env.HOME}.example"]),
                json!((0..51).map(|n| format!("d{n}.example")).collect::<Vec<_>>()),
            ],
        ),
        ("memoryMb", vec![json!("64"), json!(31), json!(-1), json!(2_000_000), json!(64.5)]),
        ("cpuPercent", vec![json!(null), json!(-1), json!(6401)]),
        ("maxProcesses", vec![json!([]), json!(-1), json!(10_001)]),
        (
            "hostSockets",
            vec![
                json!("/run/x"),
                json!(["/etc"]),
                json!(["/run"]),
                json!(["/run/../etc"]),
                json!(["/run/systemd"]),
                json!(["/run/x\n"]),
            ],
        ),
        ("autoDeploy", vec![json!("yes"), json!(1), json!(null)]),
    ]
}

#[test]
fn every_field_of_an_app_is_judged_and_a_bad_one_is_named() {
    let server = Server::start();
    let mut owner = server.owner();
    let mut app =
        owner.post("/api/apps", &json!({"name": "old", "gitRepo": GOOD_REPO})).expect(201).json();
    // Lists leave it out.
    assert!(app.as_object_mut().expect("an app").remove("envNotLive").is_some());
    let path = format!("/api/apps/{}", app["id"].as_str().expect("an id"));
    for (field, values) in where_from_and_how().into_iter().chain(what_it_may()) {
        for value in values {
            refused(&mut owner, "POST", "/api/apps", &with(field, &value), field);
            refused(&mut owner, "PATCH", &path, &json!({ field: value }), field);
        }
    }
    let second = json!({"domains": ["a.example", "localhost"]});
    let message = owner.patch(&path, &second).expect(400).json()["error"]["message"].clone();
    assert_eq!(message, "domains: entry 2 must have a dot, such as www.example.com");
    refused(&mut owner, "POST", "/api/apps", &json!({"gitRepo": GOOD_REPO}), "name");
    let all = owner.get("/api/apps").expect(200).json();
    assert_eq!(all["apps"], json!([app]), "something was stored");
}

#[test]
fn every_field_of_the_other_requests_is_judged_too() {
    let server = Server::start();
    let mut owner = server.owner();
    let app =
        owner.post("/api/apps", &json!({"name": "old", "gitRepo": GOOD_REPO})).expect(201).json();
    let app = format!("/api/apps/{}", app["id"].as_str().expect("an id"));
    let tokens = [json!(7), json!([]), json!(""), json!("two words"), json!("a\nb"), json!("é")];
    let token = "/api/settings/github-token";
    for value in tokens.iter().chain(&[json!("x".repeat(3000)), json!(null)]) {
        refused(&mut owner, "PUT", token, &json!({"token": value}), "token");
    }
    refused(&mut owner, "PUT", token, &json!({}), "token");
    refused(&mut owner, "PUT", token, &json!({"token": "ghp_good", "more": 1}), "more");
    assert_eq!(owner.get(token).expect(200).json()["saved"], false);

    let bad = where_from_and_how();
    for field in ["name", "gitRepo", "branch", "gitToken", "surprise"] {
        let (_, values) = bad.iter().find(|(name, _)| *name == field).expect("in the table");
        // Without a name it gets one.
        for value in values.iter().filter(|value| field != "name" || !value.is_null()) {
            refused(&mut owner, "POST", "/api/deploy", &with(field, value), field);
        }
    }
    refused(&mut owner, "POST", "/api/deploy", &json!({"name": "fresh"}), "gitRepo");
    assert_eq!(owner.get("/api/apps").expect(200).json()["apps"].as_array().unwrap().len(), 1);

    let back = format!("{app}/rollback");
    for value in [json!(1), json!(null), json!(""), json!("../../x"), json!("A234567bcd")] {
        refused(&mut owner, "POST", &back, &json!({"deployId": value}), "deployId");
    }
    refused(&mut owner, "POST", &back, &json!({}), "deployId");
    let more = json!({"deployId": "aaaaaaaaaa", "more": 1});
    refused(&mut owner, "POST", &back, &more, "more");
    for act in ["stop", "start", "restart", "deploys"] {
        refused(&mut owner, "POST", &format!("{app}/{act}"), &json!({"now": true}), "now");
    }
    refused(&mut owner, "POST", "/api/ws-ticket", &json!({"for": "me"}), "for");
    for path in [format!("{app}/stop"), format!("{app}/start"), "/api/ws-ticket".to_owned()] {
        let answer = owner.request("POST", &path, Some(b"[]")).expect(400);
        assert_eq!(answer.code(), "invalid_body", "{path}");
    }
    assert!(!server.log().contains("panicked"), "{}", server.log());
}

#[test]
fn a_name_that_is_taken_is_a_conflict_that_names_it() {
    let server = Server::start();
    let mut owner = server.owner();
    let body = json!({"name": "shop", "gitRepo": GOOD_REPO});
    owner.post("/api/apps", &body).expect(201);
    let taken = owner.post("/api/apps", &body).expect(409);
    assert_eq!(
        (taken.code().as_str(), &taken.json()["error"]["field"]),
        ("name_taken", &json!("name"))
    );
    let other =
        owner.post("/api/apps", &json!({"name": "other", "gitRepo": GOOD_REPO})).expect(201).json();
    let path = format!("/api/apps/{}", other["id"].as_str().expect("an id"));
    owner.patch(&path, &json!({"name": "shop"})).expect(409);
    assert_eq!(owner.get(&path).json(), other);
    owner.patch(&path, &json!({"name": "other"})).expect(200);
    owner
        .post("/api/deploy", &json!({"name": "shop", "gitRepo": "http://127.0.0.1:1/else.git"}))
        .expect(409);
}

#[test]
fn a_domain_belongs_to_one_app() {
    let server = Server::start();
    let mut owner = server.owner();
    let app = |name: &str, domains: Value| json!({"name": name, "gitRepo": GOOD_REPO, "domains": domains});
    let body = app("first", json!(["www.one.example", "One.example"]));
    let first = owner.post("/api/apps", &body).expect(201).json();
    assert_eq!(first["domains"], json!(["www.one.example", "one.example"]));
    let taken = owner.post("/api/apps", &app("second", json!(["ONE.example"]))).expect(409);
    assert_eq!(
        (taken.code().as_str(), &taken.json()["error"]["field"]),
        ("domain_taken", &json!("domains"))
    );
    assert!(taken.message().contains("one.example"), "{}", taken.message());
    let second = owner.post("/api/apps", &app("second", json!(["two.example"]))).expect(201).json();
    let path = |app: &Value| format!("/api/apps/{}", app["id"].as_str().expect("an id"));
    let both = json!({"domains": ["three.example", "www.one.example"], "memoryMb": 64});
    owner.patch(&path(&second), &both).expect(409);
    assert_eq!(owner.get(&path(&second)).json(), second, "half of a change was stored");
    owner.patch(&path(&first), &json!({"domains": []})).expect(200);
    let second = owner.patch(&path(&second), &both).expect(200).json();
    assert_eq!(second["domains"], both["domains"]);
    owner.delete(&path(&second)).expect(204);
    let again = owner.patch(&path(&first), &json!({"domains": ["three.example"]})).expect(200);
    assert_eq!(again.json()["domains"], json!(["three.example"]));
}

#[test]
fn a_bad_environment_is_refused_whole() {
    let server = Server::start();
    let mut owner = server.owner();
    let app =
        owner.post("/api/apps", &json!({"name": "a", "gitRepo": GOOD_REPO})).expect(201).json();
    let path = format!("/api/apps/{}/env", app["id"].as_str().expect("an id"));
    let good = json!({"env": [{"name": "A", "value": "1", "secret": false}, {"name": "B", "value": "2", "secret": true}]});
    let stored = owner.put(&path, &good).expect(200).json();
    assert_eq!(
        stored,
        json!({"env": [{"name": "A", "value": "1", "secret": false}, {"name": "B", "secret": true}]})
    );
    let first = |entry: Value| json!({"env": [{"name": "NEW", "value": "x"}, entry]});
    for (body, field) in [
        (json!({}), "env"),
        (json!({"env": 1}), "env"),
        (json!({"env": [], "more": 1}), "more"),
        (first(json!(7)), "env[1]"),
        (first(json!({"value": "x"})), "env[1].name"),
        (first(json!({"name": "1A", "value": "x"})), "env[1].name"),
        (first(json!({"name": "A-B", "value": "x"})), "env[1].name"),
        (first(json!({"name": "PORT", "value": "x"})), "env[1].name"),
        (first(json!({"name": "X", "value": 1})), "env[1].value"),
        (first(json!({"name": "X", "value": "a\u{0}b"})), "env[1].value"),
        (first(json!({"name": "X", "value": "x".repeat(40_000)})), "env[1].value"),
        (first(json!({"name": "X", "value": "x", "secret": "yes"})), "env[1].secret"),
        (first(json!({"name": "X", "value": "x", "what": 1})), "env[1].what"),
        (first(json!({"name": "NEW", "value": "twice"})), "env"),
        (first(json!({"name": "UNKNOWN"})), "env"),
        // A secret cannot be made readable by keeping its value.
        (first(json!({"name": "B", "secret": false})), "env"),
    ] {
        refused(&mut owner, "PUT", &path, &body, field);
    }
    let many: Vec<Value> =
        (0..300).map(|i| json!({"name": format!("N{i}"), "value": "x"})).collect();
    refused(&mut owner, "PUT", &path, &json!({"env": many}), "env");
    let large: Vec<Value> =
        (0..6).map(|i| json!({"name": format!("N{i}"), "value": "x".repeat(30_000)})).collect();
    refused(&mut owner, "PUT", &path, &json!({"env": large}), "env");
    assert_eq!(owner.get(&path).expect(200).json(), stored);
}

#[test]
fn bodies_and_queries_that_make_no_sense_are_refused() {
    let server = Server::start();
    let mut owner = server.owner();
    let deep_object = format!("{}1{}", "{\"a\":".repeat(100_000), "}".repeat(100_000));
    let deep_domains =
        format!("{{\"name\":\"a\",\"gitRepo\":\"{GOOD_REPO}\",\"domains\":{deep_object}}}");
    for body in [
        "",
        "x",
        "[]",
        "1",
        "\"a\"",
        "{",
        "{\"name\":}",
        "null",
        "{\"name\":\"a\",\"name\":\"b\",\"gitRepo\":\"http://127.0.0.1:1/o/a.git\"}",
        &"[".repeat(1024 * 1024),
    ] {
        let answer = owner.request("POST", "/api/apps", Some(body.as_bytes())).expect(400);
        assert_eq!(answer.code(), "invalid_body");
    }
    // Nobody goes down into what is no field, nor into a field that is a text or a list of them.
    for body in [&deep_object, &format!("{{\"name\":{deep_object}}}"), &deep_domains] {
        let answer = owner.request("POST", "/api/apps", Some(body.as_bytes())).expect(400);
        assert_eq!(answer.code(), "invalid_field");
    }
    owner.request("POST", "/api/apps", Some(b"{\"name\":\"\xff\"}")).expect(400);
    owner.request("POST", "/api/apps", Some(&vec![b' '; 1024 * 1024 + 1])).expect(413);
    for (path, field) in
        [("/api/apps?x=1", "x"), ("/api/apps?token=abc", "token"), ("/api/system?%00=1", "")]
    {
        assert_eq!(owner.get(path).expect(400).json()["error"]["field"], field);
    }
    let app =
        owner.post("/api/apps", &json!({"name": "a", "gitRepo": GOOD_REPO})).expect(201).json();
    let id = app["id"].as_str().expect("an id");
    for (path, field) in [
        (format!("/api/apps/{id}/deploys?limit=0"), "limit"),
        (format!("/api/apps/{id}/deploys?limit=101"), "limit"),
        (format!("/api/apps/{id}/deploys?limit=-1"), "limit"),
        (format!("/api/apps/{id}/deploys?before=x"), "before"),
        (format!("/api/apps/{id}/log?lines=99999"), "lines"),
    ] {
        assert_eq!(owner.get(&path).expect(400).json()["error"]["field"], field, "{path}");
    }
    for (method, path) in [
        ("POST", "/api/apps?x=1"),
        ("POST", "/api/deploy?x=1"),
        ("PUT", "/api/settings/github-token?x=1"),
    ] {
        let answer = owner.request(method, path, Some(b"{}")).expect(400);
        assert_eq!(answer.json()["error"]["field"], "x", "{method} {path}");
    }
    let delete = owner.delete(&format!("/api/apps/{id}?keepData=yes")).expect(400);
    assert_eq!(delete.json()["error"]["field"], "keepData");
    owner.get(&format!("/api/apps/{id}")).expect(200);
    for path in ["/api/apps/%", "/api/apps/%ff", "/api/apps/%zz"] {
        owner.get(path).expect(400);
    }
    for path in [
        "/api/apps/..%2f..",
        "/api/apps/aaaaaaaaaa",
        "/api/deploys/aaaaaaaaaa",
        "/api/nothing",
        "/api",
        "/api/",
    ] {
        owner.get(path).expect(404);
    }
}

#[test]
fn what_a_route_does_not_take_is_refused_and_nothing_is_done() {
    let server = Server::start();
    let mut owner = server.owner();
    for (path, status) in [("/api/session?x=1", 400), ("/api/session?", 200), ("/api/apps?", 200)] {
        owner.get(path).expect(status);
    }
    let token = server.token();
    let named = owner.post("/api/security/rotate-token", &json!({"force": true})).expect(400);
    assert!(named.message().starts_with("force "), "{}", named.text());
    owner.request("POST", "/api/security/rotate-token", Some(b"yes")).expect(400);
    owner.request("POST", "/api/security/rotate-token?force=1", None).expect(400);
    assert_eq!(server.token(), token);
    owner.request("POST", "/api/ws-ticket", None).expect(200);
}
