//! A secret that a build or an app prints, in whatever spelling, is in no log, no stream and no error.

use crate::harness::apps::{PLAIN, create, deploy, deploy_live, ended, fails, visitor};
use crate::harness::{GitServer, Http, Server, Setup, Ws, hex, random, until};
use data_encoding::{BASE64, BASE64_NOPAD, BASE64URL};
use serde_json::{Value, json};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);
const MARK: &str = "[redacted]";

/// As many characters of a spelling must be nowhere: what a line holds by chance is shorter.
const MOST: usize = 20;

/// The same of base64: a character at either edge holds bits of a neighbour as well.
const MOST_CODED: usize = 6;

/// Prints the spellings with what the machine has for it, from the environment.
const TOOLS: &str = r#"import json, os, base64, shlex, sys, urllib.parse
for name in ("PASSWORD", "KEY"):
    value = os.environ[name]
    raw = value.encode()
    for text in (
        repr(value), ascii(value), repr(raw), json.dumps(value), json.dumps(value, ensure_ascii=False),
        json.dumps({"a": value}), shlex.quote(value), urllib.parse.quote(value, safe=""),
        urllib.parse.quote_plus(value), urllib.parse.quote(value), urllib.parse.urlencode({"q": value}),
        raw.hex(), raw.hex().upper(),
        base64.b64encode(raw).decode(), base64.urlsafe_b64encode(raw).decode(), base64.b64encode(b"user:" + raw).decode(),
    ):
        print("TOOL", text)
sys.stdout.flush()
"#;

/// The same with the tools of a shell. Where bash is missing, its line says so.
const SHELL: &str = "printf %s \"$PASSWORD\" | base64 -w 0; echo; printf %s \"$KEY\" | base64 -w 0; echo; \
                     for n in 1 20 41 48; do printf \"%0${n}d%s\\n\" 0 \"$PASSWORD\" | base64 -w 0; echo; done; \
                     env | base64 -w 0; echo; printf %s \"$PASSWORD\" | od -An -tx1 | tr -d ' \\n'; echo; \
                     bash -c 'printf \"%q\\n\" \"$PASSWORD\" \"$KEY\"; LC_ALL=C; printf \"%q\\n\" \"$PASSWORD\"; set' 2>&1; \
                     env; export -p; ";

fn percent(text: &str, upper: bool) -> String {
    let one = |b: u8| match (b.is_ascii_alphanumeric(), upper) {
        (true, _) => char::from(b).to_string(),
        (false, true) => format!("%{b:02X}"),
        (false, false) => format!("%{b:02x}"),
    };
    text.bytes().map(one).collect()
}

/// Every spelling that is promised, of one line each, and how much of it is too much.
fn spellings(secret: &str) -> Vec<(String, usize)> {
    let json = |text: &str| serde_json::to_string(text).expect("JSON");
    let backslashed: String = secret
        .chars()
        .map(|c| if c.is_alphanumeric() { c.to_string() } else { format!("\\{c}") })
        .collect();
    let ansi: String = secret
        .bytes()
        .map(|b| match b {
            b'\'' | b'\\' => format!("\\{}", char::from(b)),
            b' '..=b'~' => char::from(b).to_string(),
            _ => format!("\\{b:03o}"),
        })
        .collect();
    let spelled = vec![
        secret.to_owned(),
        percent(secret, true),
        percent(secret, false),
        percent(secret, true).replace("%20", "+"),
        format!("'{}'", secret.replace('\'', r"'\''")),
        format!("'{}'", secret.replace('\'', r#"'"'"'"#)),
        format!("$'{ansi}'"),
        backslashed,
        json(secret),
    ];
    let mut all: Vec<_> = spelled.into_iter().map(|spelling| (spelling, MOST)).collect();
    for before in ["", "a", "ab", "abc"] {
        let text = format!("{before}{secret}");
        for encoding in [&BASE64, &BASE64_NOPAD, &BASE64URL] {
            all.push((encoding.encode(text.as_bytes()), MOST_CODED));
        }
    }
    all
}

/// Nothing of any spelling is in the text, as long as is too much; and something was hidden.
#[track_caller]
fn nothing_of(secrets: &[String], text: &str, place: &str) {
    assert!(text.contains(MARK), "nothing was hidden in {place}:\n{text}");
    for (spelling, most) in secrets.iter().flat_map(|s| spellings(s)) {
        let characters: Vec<char> = spelling.chars().collect();
        for window in characters.windows(most.min(characters.len())) {
            let window: String = window.iter().collect();
            assert!(!text.contains(&window), "{window} of {spelling} is in {place}:\n{text}");
        }
    }
}

/// The lines that somebody sees who looks at a WebSocket until the given one comes.
fn watched(server: &Server, path: &str, last: &str) -> String {
    let path = format!("{path}?token={}", server.token());
    let mut ws = Ws::at(server.address(), &path).open().expect("a session");
    let mut text = String::new();
    ws.find(LIMIT, |message| {
        for line in message["lines"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            text.push_str(line);
            text.push('\n');
        }
        (text.contains(last) || message.get("end").is_some()).then_some(())
    });
    text
}

fn set(owner: &mut Http, app: &str, fields: &Value) {
    owner.patch(&format!("/api/apps/{app}"), fields).expect(200);
}

/// An app with secrets, and a repository that tells them in every spelling.
fn a_teller(git: &GitServer, owner: &mut Http) -> (String, Vec<String>) {
    let id = create(owner, &json!({"name": "teller", "gitRepo": git.url("teller")}));
    let hook = owner.request("POST", &format!("/api/apps/{id}/webhook"), None).expect(200).json();
    let hook = hook["secret"].as_str().expect("a secret").to_owned();
    let password = format!("{}'\"%+ \\é$&/={}", hex(&random::<8>()), hex(&random::<8>()));
    let key = format!(
        "-----BEGIN KEY-----\n{}\n{}\n-----END KEY-----\n",
        BASE64.encode(&random::<48>()),
        BASE64.encode(&random::<48>())
    );
    let env = json!({"env": [
        {"name": "PASSWORD", "value": password, "secret": true},
        {"name": "KEY", "value": key, "secret": true},
    ]});
    owner.put(&format!("/api/apps/{id}/env"), &env).expect(200);
    let mut secrets: Vec<String> =
        key.lines().filter(|l| !l.starts_with('-')).map(str::to_owned).collect();
    secrets.extend([password, hook, key.trim_end().to_owned()]);

    // The whole key has line ends in clear: that spelling is told line by line.
    let told: Vec<String> = secrets
        .iter()
        .flat_map(|s| spellings(s))
        .map(|s| s.0)
        .filter(|s| !s.contains('\n'))
        .collect();
    let lines = told.join("\n") + "\n";
    let one_line = told.iter().take(24).cloned().collect::<Vec<_>>().join(" ");
    let main = "import http.server, os, subprocess\n\
                print(open('told.txt').read(), flush=True)\n\
                subprocess.run(['python3', 'tools.py'])\n\
                print('ALL TOLD', flush=True)\n\
                http.server.HTTPServer(('127.0.0.1', int(os.environ['PORT'])), http.server.BaseHTTPRequestHandler).serve_forever()\n";
    git.commit(
        "teller",
        &[("told.txt", &lines), ("line.txt", &one_line), ("tools.py", TOOLS), ("main.py", main)],
    );
    let build = format!("cat told.txt; python3 tools.py; {SHELL} echo ALL TOLD");
    set(owner, &id, &json!({"buildCommand": build, "startCommand": "python3 -u main.py"}));

    (id, secrets)
}

/// A deploy whose build and app tell everything.
fn what_is_told_while_all_goes_well(
    server: &Server,
    owner: &mut Http,
    app: &str,
    secrets: &[String],
) {
    let first = deploy(owner, app);
    let stream = watched(server, &format!("/ws/deploys/{first}"), "no such line");
    assert_eq!(ended(owner, &first)["status"], "live", "{stream}");
    assert!(stream.matches(MARK).count() > 100 && stream.contains("TOOL"), "{stream}");
    nothing_of(secrets, &stream, "the deploy's stream");
    let answer = owner.get(&format!("/api/deploys/{first}/log")).expect(200).text();
    nothing_of(secrets, &answer, "the answer with the deploy's log");
    let file = server.data().join(format!("logs/deploys/{first}.log"));
    nothing_of(secrets, &std::fs::read_to_string(file).expect("a log"), "the deploy's log on disk");
    let log = format!("/api/apps/{app}/log?lines=1000");
    until("the app has told all", LIMIT, || owner.get(&log).text().contains("ALL TOLD"));
    nothing_of(secrets, &owner.get(&log).expect(200).text(), "the app's log");
    nothing_of(
        secrets,
        &watched(server, &format!("/ws/apps/{app}/log"), "ALL TOLD"),
        "the app's stream",
    );
}

/// What a build or an app says last goes into the error, cut.
fn what_is_told_last(owner: &mut Http, app: &str, secrets: &[String]) {
    let (error, log) = {
        set(owner, app, &json!({"buildCommand": "cat line.txt; exit 4"}));
        fails(owner, app)
    };
    assert!(error.contains("exit code 4"), "{error}");
    nothing_of(secrets, &error, "the error of a build");
    nothing_of(secrets, &log, "the log of a build that failed");
    set(owner, app, &json!({"buildCommand": "printf %s \"$PASSWORD\" | base64 -w 0; exit 4"}));
    nothing_of(secrets, &fails(owner, app).0, "the error of a build that ended with base64");
    set(
        owner,
        app,
        &json!({"buildCommand": "true", "startCommand": "cat line.txt told.txt; exit 5"}),
    );
    let last = deploy(owner, app);
    let error = ended(owner, &last)["error"].as_str().expect("a sentence").to_owned();
    assert!(error.contains("exit code 5"), "{error}");
    nothing_of(secrets, &error, "the error of an app that ended");
    nothing_of(secrets, &owner.get(&format!("/api/apps/{app}/deploys")).text(), "the history");
}

#[test]
fn a_secret_in_any_spelling_is_in_no_log_no_stream_and_no_error() {
    let git = GitServer::start();
    let server = Setup::new().as_user().start();
    let mut owner = server.owner();
    let (id, secrets) = a_teller(&git, &mut owner);
    what_is_told_while_all_goes_well(&server, &mut owner, &id, &secrets);
    what_is_told_last(&mut owner, &id, &secrets);
    for text in secrets {
        assert!(!server.log().contains(&text), "{}", server.log());
    }
    set(&mut owner, &id, &json!({"startCommand": "python3 -u main.py"}));
    deploy_live(&mut owner, &id);
}

#[test]
fn a_secret_that_was_replaced_stays_hidden_after_a_restart() {
    let git = GitServer::start();
    git.commit("plain", &PLAIN);
    let mut server = Setup::new().as_user().start();
    let mut owner = server.owner();
    let start = "echo \"begin $WORD end\"; exec python3 -u main.py";
    let app = json!({"name": "plain", "gitRepo": git.url("plain"), "startCommand": start});
    let app = create(&mut owner, &app);
    let (old, new) = (hex(&random::<16>()), hex(&random::<16>()));
    let set = |owner: &mut Http, env: Value| {
        owner.put(&format!("/api/apps/{app}/env"), &json!({ "env": env })).expect(200);
    };
    set(&mut owner, json!([{"name": "WORD", "value": old, "secret": true}]));
    deploy_live(&mut owner, &app);
    set(&mut owner, json!([{"name": "WORD", "value": new, "secret": true}]));
    set(&mut owner, json!([]));
    let path = format!("/api/apps/{app}/log");
    let hidden = |text: &str| text.contains("begin [redacted] end") && !text.contains(&old);
    until("its first line", LIMIT, || hidden(&owner.get(&path).expect(200).text()));

    server.kill9();
    server = server.setup().clone().start();
    owner = server.owner();
    assert!(hidden(&owner.get(&path).expect(200).text()));
    deploy_live(&mut owner, &app);
    assert!(hidden(&owner.get(&path).expect(200).text()));
}

#[test]
fn a_secret_that_is_given_while_the_app_runs_is_hidden_from_then_on() {
    let git = GitServer::start();
    git.commit("plain", &PLAIN);
    let server = Setup::new().as_user().start();
    let mut owner = server.owner();
    let id = create(&mut owner, &json!({"name": "plain", "gitRepo": git.url("plain")}));
    deploy_live(&mut owner, &id);
    let path = format!("/ws/apps/{id}/log?token={}", server.token());
    let mut follower = Ws::at(server.address(), &path).open().expect("a session");
    let (app, log) = (format!("/api/apps/{id}"), format!("/api/apps/{id}/log?lines=1000"));
    let given = |name: &str| format!("{name}-{}", hex(&random::<12>()));
    let mut secrets = Vec::new();
    // The app's log says what it is asked for.
    let mut is_hidden = |owner: &mut Http, way: &str, secret: String| {
        visitor(owner, &id).get(&format!("/{way}:{secret}:end")).expect(200);
        let line = format!("{way}:{MARK}:end");
        until(&format!("a line with {way}"), LIMIT, || {
            let text = owner.get(&log).expect(200).text();
            assert!(!text.contains(&secret), "{way}: {text}");
            text.contains(&line)
        });
        secrets.push(secret);
    };

    let value = given("value");
    let env = json!({"env": [{"name": "WORD", "value": value, "secret": true}]});
    owner.put(&format!("{app}/env"), &env).expect(200);
    is_hidden(&mut owner, "env", value);
    let token = given("token");
    owner.patch(&app, &json!({"gitToken": token})).expect(200);
    is_hidden(&mut owner, "patch", token);
    let hook = owner.request("POST", &format!("{app}/webhook"), None).expect(200).json();
    is_hidden(&mut owner, "webhook", hook["secret"].as_str().expect("a secret").to_owned());
    let github = given("github");
    let elsewhere = json!({"gitRepo": "https://github.com/acme/shop.git", "gitToken": null});
    owner.patch(&app, &elsewhere).expect(200);
    owner.put("/api/settings/github-token", &json!({"token": github})).expect(200);
    is_hidden(&mut owner, "settings", github);

    // Who followed the log before saw none of them either.
    let mut text = String::new();
    follower.find(LIMIT, |message| {
        text.push_str(&message["lines"].to_string());
        text.contains("settings:").then_some(())
    });
    assert_eq!(text.matches(&format!("{MARK}:end")).count(), secrets.len(), "{text}");
    assert!(secrets.iter().all(|secret| !text.contains(secret)), "{text}");
}
