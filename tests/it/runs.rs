//! Commands that run once in an app's place: where they run, how they end, what is remembered (P35).

use crate::harness::apps::{DEPLOY_LIMIT, PLAIN, create, deploy_live};
use crate::harness::{
    GitServer, Http, Server, Setup, Ws, a_token, process, random, until, until_some,
};
use serde_json::{Value, json};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);

/// A server with a live app.
fn live() -> (Server, GitServer, String) {
    let git = GitServer::start();
    git.commit("shop", &PLAIN);
    let server = Setup::new().as_user().start();
    let mut owner = server.owner();
    let app = create(&mut owner, &json!({"name": "shop", "gitRepo": git.url("shop")}));
    deploy_live(&mut owner, &app);
    (server, git, app)
}

#[track_caller]
fn run(owner: &mut Http, app: &str, command: &str) -> String {
    let body = json!({"command": command});
    let run = owner.post(&format!("/api/apps/{app}/run"), &body).expect(202).json();
    run["id"].as_str().expect("an id").to_owned()
}

fn shown(owner: &mut Http, app: &str, run: &str) -> Value {
    let runs = owner.get(&format!("/api/apps/{app}/runs")).expect(200).json();
    let mut runs = runs["runs"].as_array().expect("runs").iter();
    runs.find(|one| one["id"] == *run).cloned().unwrap_or_default()
}

/// How a run has ended, once it has.
#[track_caller]
fn result(owner: &mut Http, app: &str, run: &str) -> String {
    until_some("the run ends", DEPLOY_LIMIT, || {
        shown(owner, app, run)["result"].as_str().map(str::to_owned)
    })
}

fn log(owner: &mut Http, run: &str) -> String {
    owner.get(&format!("/api/runs/{run}/log")).expect(200).text()
}

/// Whether anything on this machine has a number among its arguments.
fn is_there(number: &str) -> bool {
    process::all().into_iter().any(|pid| process::arguments(pid).contains(number))
}

/// How long something sleeps in a test: a number that nothing else has.
fn long() -> String {
    format!("1{:05}", u16::from_be_bytes(random()))
}

#[test]
fn p35_a_command_runs_where_the_app_does_and_what_it_says_is_followed_to_its_result() {
    let (server, _git, app) = live();
    let mut owner = server.owner();
    let secret = a_token();
    let env = json!({"env": [{"name": "KEY", "value": secret, "secret": true}]});
    owner.put(&format!("/api/apps/{app}/env"), &env).expect(200);
    let command = "pwd; id -u; echo \"key $KEY\"; echo port ${PORT:-none}; echo kept >>/data/kept; \
                   ls main.py; cat; echo last; exit 3";
    let id = run(&mut owner, &app, command);
    let target = format!("/ws/runs/{id}?token={}", server.token());
    let mut follower = Ws::at(server.address(), &target).open().expect("a session");
    let mut lines = Vec::new();
    let end = follower.find(LIMIT, |message| {
        let more = message["lines"].as_array().into_iter().flatten();
        lines.extend(more.map(|line| line.as_str().expect("a line").to_owned()));
        message.get("end").cloned()
    });
    let uid = run(&mut owner, &app, "stat -c %u /data");
    assert_eq!(result(&mut owner, &app, &uid), "exit code 0");
    let uid = log(&mut owner, &uid).lines().next().expect("a line").to_owned();
    let said = ["/app", &uid, "key [redacted]", "port none", "main.py", "last"];
    assert_eq!(lines[..6], said, "{lines:?}");
    assert!(lines[6].ends_with("Ended: exit code 3") && lines.len() == 7, "{lines:?}");
    assert_eq!(end["result"], "exit code 3");
    assert_eq!(end, shown(&mut owner, &app, &id));
    assert_eq!(log(&mut owner, &id), lines.join("\n") + "\n");
    let again = run(&mut owner, &app, "cat /data/kept");
    assert_eq!(result(&mut owner, &app, &again), "exit code 0");
    assert!(log(&mut owner, &again).starts_with("kept\n"));
    // The newest first, and nothing of what it was.
    let all = owner.get(&format!("/api/apps/{app}/runs")).text();
    let place = |id: &str| all.find(id).expect("it is there");
    assert!(place(&again) < place(&id) && !all.contains("/data/kept"), "{all}");
}

#[test]
fn what_cannot_be_run_is_refused_with_a_sentence_and_more_than_four_at_once_are() {
    let (server, git, app) = live();
    let mut owner = server.owner();
    let new = create(&mut owner, &json!({"name": "new", "gitRepo": git.url("shop")}));
    let mut refused = |app: &str, body: Value, status| {
        let answer = owner.post(&format!("/api/apps/{app}/run"), &body).expect(status);
        (answer.code(), answer.message())
    };
    assert_eq!(refused("aaaaaaaaaa", json!({"command": "true"}), 404).0, "app_not_found");
    let (code, message) = refused(&new, json!({"command": "true"}), 409);
    assert!(code == "not_run" && message.contains("deploy it first"), "{message}");
    for bad in ["", "  ", "a\0b", "a\nb", &"x".repeat(2001)] {
        let (code, message) = refused(&app, json!({"command": bad}), 400);
        assert!(code == "invalid_field" && message.starts_with("command "), "{bad}: {message}");
    }
    assert_eq!(refused(&app, json!({"command": ["true"]}), 400).0, "invalid_field");
    assert_eq!(refused(&app, json!({}), 400).0, "invalid_field");
    let long = long();
    let mut owner = server.owner();
    let ids: Vec<_> = (0..4).map(|_| run(&mut owner, &app, &format!("sleep {long}"))).collect();
    let body = json!({"command": "true"});
    let fifth = owner.post(&format!("/api/apps/{app}/run"), &body).expect(409);
    assert!(fifth.code() == "not_run" && fifth.message().starts_with("four commands"));
    for id in &ids {
        owner.post(&format!("/api/runs/{id}/cancel"), &json!({})).expect(202);
    }
    for id in &ids {
        assert_eq!(result(&mut owner, &app, id), "cancelled");
    }
    until("nothing is left of them", LIMIT, || !is_there(&long));
    let ended = owner.post(&format!("/api/runs/{}/cancel", ids[0]), &json!({})).expect(409);
    assert_eq!(ended.code(), "run_ended");
    assert_eq!(owner.get("/api/runs/aaaaaaaaaa/log").expect(404).code(), "run_not_found");
    let next = run(&mut owner, &app, "true");
    assert_eq!(result(&mut owner, &app, &next), "exit code 0");
}

#[test]
fn what_a_run_leaves_ends_with_it_and_a_flood_is_cut_and_said() {
    let (server, _git, app) = live();
    let mut owner = server.owner();
    let long = long();
    let id = run(&mut owner, &app, &format!("setsid sleep {long} & (sleep {long} &) ; echo left"));
    assert_eq!(result(&mut owner, &app, &id), "exit code 0");
    until("nothing is left of it", LIMIT, || !is_there(&long));
    // It goes on behind what is kept of it.
    let id = run(&mut owner, &app, "yes | head -c 3000000; echo done >/data/done");
    assert_eq!(result(&mut owner, &app, &id), "exit code 0");
    let kept = log(&mut owner, &id);
    assert!(kept.len() <= 1 << 20 && kept.ends_with("what follows is not kept]\n"));
    let id = run(&mut owner, &app, "cat /data/done; yes");
    assert_eq!(result(&mut owner, &app, &id), "output limit");
    assert!(log(&mut owner, &id).starts_with("done\n"));
}

#[test]
fn a_run_ends_with_the_server_and_a_removed_app_and_the_newest_are_remembered() {
    let (mut server, _git, app) = live();
    let mut owner = server.owner();
    let logs = server.data().join("logs/runs");
    let count = || std::fs::read_dir(&logs).expect("a directory").count();
    for n in 0..22 {
        let id = run(&mut owner, &app, &format!("exit {n}"));
        assert_eq!(result(&mut owner, &app, &id), format!("exit code {n}"));
    }
    let runs = owner.get(&format!("/api/apps/{app}/runs")).json();
    assert_eq!((runs["runs"].as_array().expect("runs").len(), count()), (20, 20));
    assert_eq!(runs["runs"][19]["result"], "exit code 2");

    let sleeps = |owner: &mut Http| {
        let long = long();
        let id = run(owner, &app, &format!("echo begun; sleep {long}"));
        until("it runs", LIMIT, || log(owner, &id).contains("begun"));
        (id, long)
    };
    let (killed, long) = sleeps(&mut owner);
    drop(owner);
    server.kill9();
    until("it has ended with the server", LIMIT, || !is_there(&long));
    let server = server.setup().clone().start();
    let mut owner = server.owner();
    assert_eq!(shown(&mut owner, &app, &killed)["result"], "ended with the server");
    let (ended, long) = sleeps(&mut owner);
    let server = server.restart();
    assert!(!is_there(&long), "its server waits for it");
    let mut owner = server.owner();
    assert_eq!(shown(&mut owner, &app, &ended)["result"], "ended with the server");
    let (_, long) = sleeps(&mut owner);
    owner.delete(&format!("/api/apps/{app}")).expect(204);
    until("it has ended with the app", LIMIT, || !is_there(&long));
    until("no log is left", LIMIT, || count() == 0);
}
