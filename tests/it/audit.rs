//! The audit log (P31): each act that changes something leaves a row, in a chain that shows what was done to it.

use crate::harness::apps::{PLAIN, create, deploy_live};
use crate::harness::sealed::Database;
use crate::harness::spec::routes;
use crate::harness::webhook::{GITHUB, NOWHERE, deliver, github};
use crate::harness::{Answer, GitServer, Http, Server, Setup, a_token, until};
use serde_json::{Value, json};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);

/// The rows behind one, oldest first.
fn rows_after(owner: &mut Http, id: i64) -> Vec<Value> {
    let page = owner.get("/api/audit?limit=200").expect(200).json();
    let mut rows = page["audit"].as_array().expect("rows").clone();
    rows.retain(|row| row["id"].as_i64().expect("a number") > id);
    rows.reverse();
    rows
}

fn newest(owner: &mut Http) -> i64 {
    let page = owner.get("/api/audit?limit=1").expect(200).json();
    page["audit"][0]["id"].as_i64().unwrap_or(0)
}

/// What a row must say of an answer.
fn outcome(answer: &Answer) -> String {
    if answer.status < 300 { "ok".to_owned() } else { answer.code() }
}

/// A body with which each route may go well.
fn body(method: &str, path: &str) -> Option<Value> {
    Some(match (method, path) {
        ("POST", "/api/apps") => json!({"name": "other", "gitRepo": NOWHERE}),
        ("PATCH", "/api/apps/{}") => json!({"branch": "next"}),
        ("PUT", "/api/apps/{}/env") => json!({"env": [{"name": "A", "value": "hidden-value"}]}),
        ("PUT", "/api/apps/{}/jobs") => {
            json!({"jobs": [{"name": "tidy", "command": "true", "schedule": "@daily"}]})
        }
        ("POST", "/api/apps/{}/rollback") => json!({"deployId": "aaaaaaaaaa"}),
        ("POST", "/api/apps/{}/run") => json!({"command": "echo hidden-value"}),
        ("PATCH", "/api/apps/{}/processes/{}") => json!({"count": 1}),
        ("POST", "/api/deploy") => json!({"gitRepo": NOWHERE, "name": "quick"}),
        ("PUT", "/api/settings/github-token") => json!({"token": "hidden-value"}),
        ("PUT", "/api/settings/notifications") => json!({"url": "https://hidden-value.invalid/"}),
        _ => return None,
    })
}

#[test]
fn p31_every_route_that_changes_something_leaves_one_row_with_its_real_outcome_and_a_read_none() {
    let server = Server::start();
    let mut owner = server.owner();
    let app = create(&mut owner, &json!({"name": "shop", "gitRepo": NOWHERE}));
    let first = &rows_after(&mut owner, 0)[0];
    assert_eq!((&first["act"], &first["appName"]), (&json!("POST apps"), &json!("shop")));
    let (mut went_well, mut failed) = (0, 0);
    // Its removal at the end.
    let mut all: Vec<_> = routes().into_iter().collect();
    all.sort_by_key(|(method, path)| (method == "DELETE" && path == "/api/apps/{}", path.clone()));
    for (method, path) in all {
        let changes = method != "GET" && path != "/api/ws-ticket" && path != "/api/detect";
        for id in ["aaaaaaaaaa", &app] {
            let before = newest(&mut owner);
            let target = path.replacen("{}", id, 1).replace("{}", "tidy");
            let body = if id == app { body(&method, &path) } else { Some(json!({})) };
            let body = body.map(|body| body.to_string());
            let answer = owner.request(&method, &target, body.as_deref().map(str::as_bytes));
            if path.ends_with("rotate-token") {
                owner = server.owner();
            }
            let rows = rows_after(&mut owner, before);
            if !changes {
                assert!(rows.is_empty(), "{method} {target}: {rows:?}");
                continue;
            }
            let [row] = &rows[..] else { panic!("{method} {target}: {rows:#?}") };
            let who = if path.starts_with("/api/hooks") { "webhook" } else { "admin" };
            let act = format!("{method} {}", &target["/api/".len()..]);
            assert_eq!((&row["who"], &row["act"]), (&json!(who), &json!(act)));
            assert_eq!(
                (&row["client"], &row["outcome"]),
                (&json!("127.0.0.1"), &json!(outcome(&answer)))
            );
            if path.starts_with("/api/apps/{}") && id == app {
                assert_eq!((&row["appId"], &row["appName"]), (&json!(app), &json!("shop")));
            }
            if answer.status < 300 { went_well += 1 } else { failed += 1 }
        }
    }
    assert!(went_well > 12 && failed > 12, "{went_well} went well, {failed} did not");
    let made = |act: &str, name: &str| {
        let mut rows = rows_after(&mut server.owner(), 0).into_iter();
        rows.any(|row| row["act"] == act && row["appName"] == name && row["appId"].is_string())
    };
    assert!(made("POST apps", "other") && made("POST deploy", "quick"), "named by what was made");
    let database = Database::of(server.stop());
    let told = database.texts().into_iter().filter(|(place, _)| place == "audit.act");
    let told: String = told.map(|(_, act)| act).collect();
    assert!(told.contains("POST deploy") && !told.contains("hidden-value"), "{told}");
}

#[test]
fn p31_a_token_that_was_typed_into_a_path_is_in_no_row() {
    let token = a_token();
    let server = Setup::new().token(&token).start();
    server.owner().delete(&format!("/api/security/lockouts/{token}")).expect(400);
    let row = &rows_after(&mut server.owner(), 0)[0];
    assert_eq!(row["act"], "DELETE security/lockouts/…");
    assert_eq!(row["outcome"], "invalid_field");
}

/// What is typed, its exit code, and the row that it leaves: the act and its outcome.
type Case<'a> = (&'a str, i32, Option<(&'a str, &'a str)>);

/// The words of each command, out of the help text.
fn commands(server: &Server) -> Vec<String> {
    let help = server.operator(&["help"]).stdout;
    let table = help.split("Commands:\n").nth(1).expect("a table").split("\n\n").next();
    let lines = table.expect("a table").lines();
    lines.filter_map(|line| Some(line.get(2..27)?.trim().to_owned())).collect()
}

#[test]
fn p31_every_command_that_changes_something_leaves_one_row_with_its_real_outcome_and_others_none() {
    let git = GitServer::start();
    git.commit("shop", &PLAIN);
    let server = Setup::new().as_user().start();
    let mut owner = server.owner();
    let app = create(&mut owner, &json!({"name": "shop", "gitRepo": git.url("shop")}));
    deploy_live(&mut owner, &app);
    let key = server.setup().home().join("key");
    std::fs::write(&key, "ab".repeat(32)).unwrap();
    std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    for command in commands(&server) {
        let cases: &[Case] = match command.as_str() {
            "token"
            | "lockouts"
            | "config"
            | "version"
            | "help"
            | "audit"
            | "completions"
            | "backup --no-app-data" => &[(&command, 0, None)],
            "help TOPIC" => &[("help backup", 0, None)],
            "backup [FILE]" => &[("backup", 0, None)],
            "deploy --sample" => &[("deploy --sample", 1, Some(("deploy", "not_done")))],
            "token --rotate" => &[("token --rotate", 0, Some(("token --rotate", "ok")))],
            "run APP -- COMMAND ..." => &[
                ("run shop -- true", 0, Some(("run", "ok"))),
                ("run shop -- false", 1, Some(("run", "exit code 1"))),
            ],
            "deploy APP -" => &[("deploy shop -", 1, Some(("deploy", "not_done")))],
            "lockouts clear CLIENT" => {
                let act = "DELETE security/lockouts/192.0.2.9";
                &[("lockouts clear 192.0.2.9", 1, Some((act, "lockout_not_found")))]
            }
            "audit --head HASH" => &[("audit --head 00", 1, None)],
            "rekey" => &[("rekey", 0, Some(("rekey", "ok")))],
            "rekey --key-file FILE" => &[
                ("rekey --key-file /dev/null", 1, Some(("rekey", "not_done"))),
                ("rekey --key-file key", 0, Some(("rekey", "ok"))),
            ],
            "rekey --mark-lost" => &[("rekey --mark-lost", 1, None)],
            "restore FILE" | "restore FILE --key-file F" => &[("restore /dev/null", 1, None)],
            "import DIR" | "import DIR --yes" => &[("import /dev", 1, None)],
            "audit --begin-anew" => &[("audit --begin-anew", 1, None)],
            "check" | "check --json" => &[("check", 1, None)],
            "prove DIR" => &[("prove /dev", 1, None)],
            // The server itself, and what root does to the machine, where there may be no database.
            "" | "(none)" | "install" | "install --dry-run" | "uninstall" | "uninstall --purge" => {
                &[]
            }
            "update FILE|URL [--sha256" => &[],
            other => panic!("what row does `{other}` leave?"),
        };
        for (words, code, row) in cases {
            let before = newest(&mut server.owner());
            let words: Vec<&str> = words.split(' ').collect();
            let finished = server.operator(&words);
            assert_eq!(finished.code, Some(*code), "{words:?}: {finished:?}");
            let rows = rows_after(&mut server.owner(), before);
            let told: Vec<_> =
                rows.iter().map(|r| (r["act"].as_str(), r["outcome"].as_str())).collect();
            let wanted: Vec<_> =
                row.iter().map(|(act, outcome)| (Some(*act), Some(*outcome))).collect();
            assert_eq!(told, wanted, "{words:?}: {finished:?}");
            assert!(rows.iter().all(|row| row["who"] == "shell" && row["client"].is_null()));
            assert!(rows.iter().all(|row| row["act"] != "run" || row["appName"] == "shop"));
        }
    }
    assert!(server.operator(&["audit"]).stdout.contains("the chain is whole; its head is "));
}

#[test]
fn p31_a_rotation_without_a_server_leaves_its_row_too() {
    let setup = Setup::new();
    // Before the first start there is no database, and none is made.
    assert_eq!(setup.run(&["token"]).code, Some(1));
    let setup = setup.start().stop();
    assert_eq!(setup.run(&["token", "--rotate"]).code, Some(0));
    let shown = setup.run(&["audit"]);
    assert!(shown.stdout.contains("token --rotate: ok"), "{shown:?}");
    let server = setup.start();
    assert_eq!(rows_after(&mut server.owner(), 0)[0]["act"], "token --rotate");
}

#[test]
fn p31_lockouts_are_rows_and_a_flood_of_them_few() {
    let server = Setup::new().trust_proxy().start();
    let mut owner = server.owner();
    for n in 0..40 {
        let mut guesser = server.stranger().bearer("wrong").forwarded_for(&format!("192.0.2.{n}"));
        (0..6).for_each(|_| drop(guesser.get("/api/session")));
    }
    until("the rows of lockouts", LIMIT, || rows_after(&mut owner, 0).len() >= 10);
    // After these nothing comes: one that changes something follows them through the same queue.
    owner.post("/api/security/rotate-token", &json!({})).expect(200);
    let rows = rows_after(&mut server.owner(), 0);
    let (lockouts, other): (Vec<_>, Vec<_>) = rows.iter().partition(|row| row["who"] == "system");
    assert_eq!((lockouts.len(), other.len()), (10, 1), "{rows:#?}");
    assert_eq!(lockouts[0]["client"], "192.0.2.0");
    assert_eq!(lockouts[0]["act"], "locked out 192.0.2.0 for 2 s after 5 wrong admin tokens");
}

#[test]
fn p31_deliveries_that_do_nothing_are_few_rows_and_one_that_deploys_is_one_each_time() {
    let server = Server::start();
    let mut owner = server.owner();
    let app = create(&mut owner, &json!({"name": "shop", "gitRepo": NOWHERE, "branch": "main"}));
    let made = owner.request("POST", &format!("/api/apps/{app}/webhook"), None).expect(200).json();
    let secret = made["secret"].as_str().unwrap();
    let before = newest(&mut owner);
    let mut deployed = 0;
    for _ in 0..30 {
        let body = GITHUB.replace("\"ref\"", &format!("\"salt\": {deployed}, \"ref\""));
        deployed += i32::from(
            deliver(server.stranger(), &app, &github(secret, "push", &body), &body).status == 202,
        );
        deliver(server.stranger(), &app, &github("wrong", "push", &body), &body).expect(401);
        deliver(server.stranger(), &app, &github(secret, "ping", "{}"), "{}").expect(200);
    }
    let rows = rows_after(&mut owner, before);
    let count = |outcome: &str| rows.iter().filter(|row| row["outcome"] == outcome).count();
    assert!(
        rows.iter().all(|row| row["who"] == "webhook" && row["appName"] == "shop"),
        "{rows:#?}"
    );
    assert_eq!(count("ok"), usize::try_from(deployed).unwrap());
    assert!(deployed > 0 && count("signature_wrong") > 1 && count("ignored") > 1, "{rows:#?}");
    assert_eq!(count("signature_wrong") + count("ignored"), 10);
}

#[test]
fn p31_an_act_that_was_answered_has_its_row_after_a_kill() {
    let mut server = Server::start();
    let mut owner = server.owner();
    let app = create(&mut owner, &json!({"name": "shop", "gitRepo": NOWHERE}));
    for n in 0..20 {
        let change = json!({"healthPath": format!("/{n}")});
        owner.patch(&format!("/api/apps/{app}"), &change).expect(200);
    }
    server.kill9();
    let setup = server.setup().clone();
    drop(server);
    let shown = setup.run(&["audit"]);
    assert_eq!(shown.stdout.matches("PATCH apps/").count(), 20, "{shown:?}");
    assert_eq!(shown.code, Some(0));
}

#[test]
fn p31_what_is_done_to_the_log_by_hand_is_found_and_named_by_the_audit_command() {
    let server = Server::start();
    let mut owner = server.owner();
    (0..5).for_each(|_| drop(owner.delete("/api/settings/github-token").expect(204)));
    let head =
        owner.get("/api/audit?limit=1").json()["audit"][0]["hash"].as_str().unwrap().to_owned();
    server.wait_for_log("head of the audit log: ");
    let whole = server.operator(&["audit", "--head", &head]);
    assert_eq!(whole.code, Some(0), "{whole:?}");
    assert!(whole.stdout.contains("the chain is whole, and this head is in it"), "{whole:?}");
    // By pages.
    let page = owner.get("/api/audit?limit=2&before=4").json();
    let ids: Vec<_> =
        page["audit"].as_array().unwrap().iter().map(|row| row["id"].clone()).collect();
    assert_eq!(ids, [3, 2]);
    owner.get("/api/audit?before=x").expect(400);

    let database = Database::of(server.stop());
    database.run("DELETE FROM audit WHERE seq = 5");
    let cut = database.setup().run(&["audit", "--head", &head]);
    assert!(cut.code == Some(1) && cut.stderr.contains("this head is not in it"), "{cut:?}");
    database.run("UPDATE audit SET act = replace(act, 'github-token', 'nothing') WHERE seq = 3");
    let changed = database.setup().run(&["audit"]);
    assert!(
        changed.code == Some(1) && changed.stderr.contains(": row 3 is not the one"),
        "{changed:?}"
    );
    assert!(changed.stdout.contains("settings/nothing"), "what is there is shown");
}
