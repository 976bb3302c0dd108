//! From a private Git repository to a running app, with real dependencies, in a real sandbox.

use crate::harness::apps::{
    DEPLOY_LIMIT, NODE, PLAIN, PYTHON, create, deploy, deploy_live, ended, visitor,
};
use crate::harness::{GitServer, Http, Server, Setup, Ws, a_token, process};
use data_encoding::BASE64;
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

/// Looks at the arguments of every process of the machine, all the time, for texts.
struct ArgumentWatch {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<(usize, Vec<String>)>,
}

impl ArgumentWatch {
    fn start(forms: Vec<String>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let (mut samples, mut found) = (0, Vec::new());
            while !ended.load(Ordering::Relaxed) {
                samples += 1;
                found.extend(
                    process::all()
                        .into_iter()
                        .map(process::arguments)
                        .filter(|a| forms.iter().any(|form| a.contains(form))),
                );
                std::thread::yield_now();
            }
            (samples, found)
        });
        Self { stop, thread }
    }

    /// How many looks it took, and what it saw.
    fn finish(self) -> (usize, Vec<String>) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the watch")
    }
}

/// Whether any file below holds one of these byte strings; links are not followed.
fn holds_any(directory: &Path, needles: &[String]) -> Option<String> {
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let (path, kind) = (entry.path(), entry.file_type().expect("a type"));
        if kind.is_dir() {
            if let Some(found) = holds_any(&path, needles) {
                return Some(found);
            }
        } else if kind.is_file() {
            let bytes = std::fs::read(&path).expect("a readable file");
            for needle in needles {
                if bytes.windows(needle.len()).any(|w| w == needle.as_bytes()) {
                    return Some(path.display().to_string());
                }
            }
        }
    }
    None
}

fn token_forms(token: &str) -> Vec<String> {
    let basic = BASE64.encode(format!("x-access-token:{token}").as_bytes());
    vec![token.to_owned(), BASE64.encode(token.as_bytes()), basic]
}

/// The whole story, told once for an ordinary user and once for root.
fn a_private_repository_becomes_a_running_app(setup: Setup) {
    let git = GitServer::start();
    let (git_token, secret, others) = (a_token(), a_token(), a_token());
    git.require_token(&git_token);
    let commit = git.commit("shop", &PYTHON);
    let server = setup.start();
    let mut owner = server.owner();
    let app = create(
        &mut owner,
        &json!({"name": "shop", "gitRepo": git.url("shop"), "gitToken": git_token}),
    );
    let env = json!({"env": [
        {"name": "MY_SECRET", "value": secret, "secret": true},
        {"name": "GREETING", "value": "hello there", "secret": false},
    ]});
    owner.put(&format!("/api/apps/{app}/env"), &env).expect(200);

    let watch = ArgumentWatch::start(token_forms(&git_token));
    let secret_watch = ArgumentWatch::start(vec![secret.clone()]);
    let id = deploy(&mut owner, &app);
    let (lines, end) = follow(&server, &id);
    let (samples, seen) = watch.finish();
    assert_eq!(end["status"], "live", "{end:#}\n{}", lines.join("\n"));
    assert_eq!(end["commit"], commit.as_str());
    assert!(samples > 20, "the watch looked only {samples} times");
    assert_eq!(seen, Vec::<String>::new(), "the token was in a process's arguments");
    assert_eq!(secret_watch.finish().1, Vec::<String>::new(), "a value was in arguments");

    let mut shop = visitor(&mut owner, &app);
    assert_eq!(shop.get("/").expect(200).text(), "hello from flask");
    let all = lines.join("\n");
    assert!(all.contains("requirements.txt") && all.contains("gunicorn"), "{all}");
    let stored = owner.get(&format!("/api/deploys/{id}/log")).expect(200).text();
    for form in token_forms(&git_token) {
        assert!(!all.contains(&form) && !stored.contains(&form), "the token is in the log");
    }
    for place in ["apps", "logs"] {
        let found = holds_any(&server.data().join(place), &token_forms(&git_token));
        assert_eq!(found, None, "the token is in a file under {place}");
    }

    let node = another_app(&git, &git_token, &mut owner, &others);
    the_app_reaches_nothing_but_its_own(&server, &mut shop, &app, &node, &others);
    let inside = shop.get("/env").json();
    assert_eq!(inside["MY_SECRET"], secret.as_str());
    assert_eq!(inside["GREETING"], "hello there");
    assert_eq!(inside["DATA_DIR"], "/data", "its own, not the server's");
    for name in ["ADMIN_TOKEN", "BETTER_PAAS_SECRET_KEY", "GIT_CONFIG_COUNT"] {
        assert!(inside[name].is_null(), "{name} is in the app's environment");
    }
}

/// Follows a deploy over its WebSocket: all lines, and the result.
fn follow(server: &Server, deploy: &str) -> (Vec<String>, Value) {
    let path = format!("/ws/deploys/{deploy}?token={}", server.token());
    let mut ws = Ws::at(server.address(), &path).open().expect("a session");
    let mut lines = Vec::new();
    let end = ws.find(DEPLOY_LIMIT, |message| {
        let batch = message["lines"].as_array().into_iter().flatten();
        lines.extend(batch.filter_map(Value::as_str).map(str::to_owned));
        message.get("end").cloned()
    });
    (lines, end)
}

/// The second ecosystem: a Node app whose commands are detected.
fn another_app(git: &GitServer, git_token: &str, owner: &mut Http, secret: &str) -> String {
    git.commit("site", &NODE);
    let node = create(
        owner,
        &json!({"name": "site", "gitRepo": git.url("site"), "gitToken": git_token, "healthPath": "/healthz"}),
    );
    let env = json!({"env": [{"name": "OTHERS_SECRET", "value": secret, "secret": true}]});
    owner.put(&format!("/api/apps/{node}/env"), &env).expect(200);
    deploy_live(owner, &node);
    assert_eq!(visitor(owner, &node).get("/").expect(200).text(), "hello from express");
    node
}

/// The app tries, and reports what it got.
fn the_app_reaches_nothing_but_its_own(
    server: &Server,
    inside: &mut Http,
    app: &str,
    other: &str,
    others_secret: &str,
) {
    let data = server.data();
    let at = |rest: &str| data.join(rest).display().to_string();
    let mut forbidden = vec![data.display().to_string(), at("apps"), at(&format!("apps/{other}"))];
    for file in ["better-paas.db", "better-paas.db-wal", "secret.key", "admin_token.txt", "lock"] {
        forbidden.push(at(file));
    }
    forbidden.push(at(&format!("apps/{app}/repo")));
    forbidden.push(at(&format!("logs/apps/{other}.log")));
    forbidden.extend(
        ["/root", "/home", "/etc/shadow", "/proc/1/root/etc/shadow", "/var/lib"].map(String::from),
    );
    for path in forbidden {
        let got = inside.get(&format!("/read?path={path}")).expect(200).json();
        assert!(got["refused"].is_string(), "the app read {path}: {got}");
    }
    let socket = inside.get(&format!("/connect?path={}", at("gate.sock"))).expect(200).json();
    assert!(socket["refused"].is_string(), "the app reached the gate's socket");
    let processes = inside.get("/processes").expect(200).text();
    assert!(processes.contains("gunicorn"), "it sees its own: {processes}");
    assert!(!processes.contains(others_secret), "it sees another app's environment");
    assert!(!processes.contains("server.js"), "it sees another app's processes");
    for path in ["/usr/x", "/etc/x", "/x", "/bin/x"] {
        let got = inside.get(&format!("/write?path={path}")).expect(200).json();
        assert!(got["refused"].is_string(), "the app wrote {path}");
    }
    let got = inside.get("/write?path=/data/kept&text=yes").expect(200).json();
    assert_eq!(got["wrote"], true, "{got}");
    let status = inside.get("/status").expect(200).json();
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        let bits = status[set].as_str().expect("a set").trim();
        assert_eq!(u64::from_str_radix(bits, 16), Ok(0), "{set} is {bits}");
    }
    assert_eq!(status["NoNewPrivs"].as_str().map(str::trim), Some("1"));
}

#[test]
fn a_private_repository_becomes_a_running_app_under_an_ordinary_user() {
    a_private_repository_becomes_a_running_app(Setup::new().as_user());
}

#[test]
fn a_private_repository_becomes_a_running_app_under_root() {
    assert!(
        rustix::process::getuid().is_root() || std::env::var_os("CI").is_none(),
        "this needs root; CI has it"
    );
    if rustix::process::getuid().is_root() {
        a_private_repository_becomes_a_running_app(Setup::new());
    }
}

#[test]
fn git_errors_say_what_to_do_and_never_show_the_token() {
    let git = GitServer::start();
    let (right, wrong) = (a_token(), a_token());
    git.require_token(&right);
    git.commit("private", &PLAIN);
    let server = Setup::new().as_user().start();
    let mut owner = server.owner();
    let app =
        create(&mut owner, &json!({"name": "a", "gitRepo": git.url("private"), "gitToken": wrong}));
    let fail = |owner: &mut Http, change: Value| {
        owner.patch(&format!("/api/apps/{app}"), &change).expect(200);
        let id = deploy(owner, &app);
        let result = ended(owner, &id);
        assert_eq!(result["status"], "failed", "{result:#}");
        let text = format!("{result} {}", owner.get(&format!("/api/deploys/{id}/log")).text());
        for form in token_forms(&wrong).iter().chain(&token_forms(&right)) {
            assert!(!text.contains(form.as_str()), "a token is shown");
        }
        result["error"].as_str().expect("an error").to_lowercase()
    };
    let refused = fail(&mut owner, json!({}));
    assert!(refused.contains("token"), "{refused}");
    let none = fail(&mut owner, json!({"gitToken": null}));
    assert!(none.contains("token"), "{none}");
    let branch = fail(&mut owner, json!({"gitToken": right, "branch": "nowhere"}));
    assert!(branch.contains("branch"), "{branch}");
    let missing = fail(&mut owner, json!({"branch": "", "gitRepo": git.url("missing")}));
    assert!(missing.contains("not found"), "{missing}");
}

#[test]
fn a_git_token_follows_no_redirect_to_another_host() {
    let (git, thief) = (GitServer::start(), GitServer::start());
    let token = a_token();
    git.require_token(&token);
    git.commit("private", &PLAIN);
    thief.commit("private", &PLAIN);
    git.redirect_to(thief.url("x").trim_end_matches("/x.git"));
    let server = Setup::new().as_user().start();
    let mut owner = server.owner();
    let app =
        create(&mut owner, &json!({"name": "a", "gitRepo": git.url("private"), "gitToken": token}));
    let id = deploy(&mut owner, &app);
    assert_eq!(ended(&mut owner, &id)["status"], "failed");
    for request in thief.seen() {
        assert!(
            !format!("{request:?}")
                .contains(&BASE64.encode(format!("x-access-token:{token}").as_bytes()))
        );
    }
}
