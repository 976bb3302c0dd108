//! Jobs: what an app has run at times of its own, declared by its repository or given by its owner (P35).

use crate::harness::apps::{DEPLOY_LIMIT, PLAIN, create, deploy_live, roll_back, show};
use crate::harness::{GitServer, Http, Server, Setup, process, random, until, until_some};
use serde_json::{Value, json};
use std::fs::File;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A job is due within a minute, and is looked at twice in one.
const LIMIT: Duration = Duration::from_secs(150);

/// Never due while a test runs.
const FAR: &str = "0 0 29 2 *";

fn start() -> (GitServer, Server, Http) {
    let git = GitServer::start();
    let server = Setup::new().as_user().start();
    let owner = server.owner();
    (git, server, owner)
}

/// Commits an app with these jobs in its `app.json`, and deploys it.
fn live_app(git: &GitServer, owner: &mut Http, name: &str, jobs: &Value) -> String {
    let manifest = json!({ "cron": jobs }).to_string();
    git.commit(name, &[PLAIN[0], PLAIN[1], ("app.json", &manifest)]);
    let app = create(owner, &json!({"name": name, "gitRepo": git.url(name)}));
    deploy_live(owner, &app);
    app
}

fn jobs(owner: &mut Http, app: &str) -> Vec<Value> {
    let answer = owner.get(&format!("/api/apps/{app}/jobs")).expect(200).json();
    answer["jobs"].as_array().expect("a list").clone()
}

fn job(owner: &mut Http, app: &str, name: &str) -> Value {
    let all = jobs(owner, app);
    all.iter().find(|job| job["name"] == name).unwrap_or_else(|| panic!("{all:?}")).clone()
}

fn set(owner: &mut Http, app: &str, jobs: &Value) {
    owner.put(&format!("/api/apps/{app}/jobs"), &json!({ "jobs": jobs })).expect(200);
}

fn run_now(owner: &mut Http, app: &str, name: &str) -> String {
    let answer = owner.post(&format!("/api/apps/{app}/jobs/{name}/run"), &json!({})).expect(202);
    answer.json()["id"].as_str().expect("an id").to_owned()
}

fn runs(owner: &mut Http, app: &str, name: &str) -> Vec<Value> {
    let answer = owner.get(&format!("/api/apps/{app}/jobs/{name}/runs")).expect(200).json();
    answer["runs"].as_array().expect("a list").clone()
}

/// Waits until a job has so many runs, all of them ended; the newest first.
#[track_caller]
fn ended(owner: &mut Http, app: &str, name: &str, count: usize) -> Vec<Value> {
    until_some("its runs have ended", LIMIT, || {
        let all = runs(owner, app, name);
        (all.len() == count && all.iter().all(|run| run["result"].is_string())).then_some(all)
    })
}

fn app_log(owner: &mut Http, app: &str) -> String {
    owner.get(&format!("/api/apps/{app}/log")).expect(200).text()
}

/// Has a server that does not run be off for two days.
fn two_days_later(server: &Server) {
    let file = File::open(server.data().join("jobs-clock")).expect("the clock of the jobs");
    let before = SystemTime::now() - Duration::from_secs(2 * 86_400);
    file.set_modified(before).expect("noted");
}

#[test]
fn p35_the_jobs_of_an_app_json_and_the_owners_run_where_the_app_runs() {
    let (git, _server, mut owner) = start();
    let declared = json!([
        {"command": "echo in $PWD for $APP_NAME with $KEY, port ${PORT-none}; touch /data/was", "schedule": FAR},
        {"name": "broken", "command": "exit 3", "schedule": FAR},
    ]);
    let app = live_app(&git, &mut owner, "shop", &declared);
    let secret = crate::harness::a_token();
    let env = json!({"env": [{"name": "KEY", "value": secret, "secret": true}]});
    owner.put(&format!("/api/apps/{app}/env"), &env).expect(200);
    let all = jobs(&mut owner, &app);
    let named = all.iter().map(|job| format!("{} {} {}", job["name"], job["from"], job["lastRun"]));
    let expected = [r#""cron-1" "app.json" null"#, r#""broken" "app.json" null"#];
    assert_eq!(named.collect::<Vec<_>>(), expected);
    let leap = all[0]["nextRunAt"].as_i64().expect("a time");
    assert_eq!(leap % 86_400_000, 0, "at midnight, in UTC");

    let id = run_now(&mut owner, &app, "cron-1");
    let run = ended(&mut owner, &app, "cron-1", 1).remove(0);
    assert_eq!((run["id"].as_str(), run["result"].as_str()), (Some(&*id), Some("exit code 0")));
    assert_eq!(job(&mut owner, &app, "cron-1")["lastRun"], run);
    let log = owner.get(&format!("/api/runs/{id}/log")).expect(200).text();
    assert!(log.contains("in /app for shop with ") && log.contains("port none"), "{log}");
    assert!(!log.contains(&secret), "{log}");

    // One that fails is told of where its owner looks.
    run_now(&mut owner, &app, "broken");
    ended(&mut owner, &app, "broken", 1);
    assert_eq!(job(&mut owner, &app, "broken")["lastRun"]["result"], "exit code 3");
    until("the log says so", LIMIT, || {
        app_log(&mut owner, &app).contains("The job broken failed: exit code 3")
    });

    // The owner's own need no deploy, see what the others have left, and take a name over.
    let own = json!([
        {"name": "tidy", "command": "rm /data/was", "schedule": "0 4 * * *"},
        {"name": "broken", "command": "true", "schedule": "@daily"},
    ]);
    set(&mut owner, &app, &own);
    let all = jobs(&mut owner, &app);
    let named = all.iter().map(|job| format!("{} {}", job["name"], job["from"]));
    let expected = [r#""cron-1" "app.json""#, r#""tidy" "owner""#, r#""broken" "owner""#];
    assert_eq!(named.collect::<Vec<_>>(), expected);
    for name in ["tidy", "broken"] {
        run_now(&mut owner, &app, name);
    }
    assert_eq!(ended(&mut owner, &app, "tidy", 1)[0]["result"], "exit code 0");
    assert_eq!(ended(&mut owner, &app, "broken", 2)[0]["result"], "exit code 0");
    assert_eq!(show(&mut owner, &app)["jobs"], Value::Null, "they have an address of their own");

    // Other settings leave them, and so does a deploy; a rollback brings back the release's own.
    let first = show(&mut owner, &app)["liveDeployId"].as_str().expect("an id").to_owned();
    owner.patch(&format!("/api/apps/{app}"), &json!({"memoryMb": 200})).expect(200);
    git.commit("shop", &[PLAIN[0], PLAIN[1], ("app.json", "{}")]);
    deploy_live(&mut owner, &app);
    assert_eq!(jobs(&mut owner, &app).len(), 2);
    owner.get(&format!("/api/apps/{app}/jobs/cron-1/runs")).expect(404);
    set(&mut owner, &app, &json!([]));
    assert_eq!(jobs(&mut owner, &app).len(), 0);
    roll_back(&mut owner, &app, &first);
    assert_eq!(jobs(&mut owner, &app).len(), 2);
}

#[test]
fn jobs_that_are_none_are_refused_with_a_sentence_and_cost_no_deploy() {
    let (git, _server, mut owner) = start();
    let body = json!({"name": "shop", "gitRepo": git.url("shop")});
    let app = create(&mut owner, &body);
    let path = format!("/api/apps/{app}/jobs");
    let own =
        |name: &str, schedule: &str| json!({"name": name, "command": "true", "schedule": schedule});
    for (jobs, field, why) in [
        (json!([own("a", "0 25 * * *")]), "jobs[0].schedule", "has an hour that is none"),
        (json!([own("a", "0 3 * *")]), "jobs[0].schedule", "must have five fields"),
        (json!([own("a", "@daily"), own("b", "0 0 30 2 *")]), "jobs[1].schedule", "never comes"),
        (json!([own("A b", "@daily")]), "jobs[0].name", "may hold only"),
        (json!([{"name": "a", "schedule": "@daily"}]), "jobs[0].command", "is missing"),
        (
            json!([{"name": "a", "command": "", "schedule": "@daily"}]),
            "jobs[0].command",
            "must not be empty",
        ),
        (
            json!([{"name": "a", "command": "x", "schedule": "@daily", "user": "root"}]),
            "jobs[0].user",
            "is not a field",
        ),
        (json!([own("a", "@daily"), own("a", "@daily")]), "jobs", "names a job twice"),
        (json!(vec![own("a", "@daily"); 21]), "jobs", "at most 20"),
        (json!({}), "jobs", "must be a list"),
        (json!([7]), "jobs[0]", "must be a JSON object"),
    ] {
        let answer = owner.put(&path, &json!({ "jobs": jobs })).expect(400);
        let message = answer.message();
        assert!(message.starts_with(field) && message.contains(why), "{jobs}: {message}");
    }
    assert_eq!(jobs(&mut owner, &app), [Value::Null; 0], "none of it was kept");

    // Before there is anything that could run them they wait.
    set(&mut owner, &app, &json!([own("tidy", "* * * * *")]));
    assert_eq!(job(&mut owner, &app, "tidy")["nextRunAt"], Value::Null);
    let answer = owner.post(&format!("{path}/tidy/run"), &json!({})).expect(409);
    assert!(answer.message().contains("deploy it first"), "{}", answer.message());
    let answer = owner.post(&format!("{path}/nothing/run"), &json!({})).expect(404);
    assert_eq!(answer.code(), "job_not_found");

    // What a repository has in its place is no reason to fail.
    let large = format!("{{\"cron\": [{}]}}", " ".repeat(2 << 20));
    let deep = "[".repeat(10_000);
    for (manifest, why) in [
        (large.as_str(), "KiB of it are read"),
        (&deep, "app.json is not valid JSON"),
        (
            r#"{"cron": [{"command": "x", "schedule": "61 * * * *"}, 7]}"#,
            "Job 1 of app.json is left out",
        ),
    ] {
        git.commit("shop", &[PLAIN[0], PLAIN[1], ("app.json", manifest)]);
        let deploy = deploy_live(&mut owner, &app);
        let log = owner.get(&format!("/api/deploys/{deploy}/log")).expect(200).text();
        assert!(log.contains(why), "{log}");
        assert_eq!(jobs(&mut owner, &app).len(), 1, "the owner's");
    }
}

#[test]
fn a_job_runs_each_minute_and_never_beside_itself() {
    let (git, server, mut owner) = start();
    let declared = json!([
        {"name": "slow", "command": "until [ -e /data/go ]; do sleep 0.05; done", "schedule": "* * * * *"},
        {"name": "tick", "command": "true", "schedule": "* * * * *"},
    ]);
    let app = live_app(&git, &mut owner, "shop", &declared);
    // It may have begun by itself in this moment.
    let path = format!("/api/apps/{app}/jobs/slow/run");
    owner.post(&path, &json!({}));
    let answer = owner.post(&path, &json!({})).expect(409);
    assert_eq!(answer.code(), "not_run");
    assert!(answer.message().contains("still goes on"), "{}", answer.message());

    let line = "The job slow is not run this time: its run before still goes on";
    until("its time has passed", LIMIT, || app_log(&mut owner, &app).contains(line));
    assert_eq!(runs(&mut owner, &app, "slow").len(), 1);
    // A new job waits for its time.
    let ticks = until_some("it ticks", LIMIT, || {
        Some(runs(&mut owner, &app, "tick")).filter(|all| !all.is_empty())
    });
    let first = ticks.last().expect("one")["startedAt"].as_i64().expect("a time");
    let live = owner.get(&format!("/api/apps/{app}/deploys")).expect(200).json();
    let live = live["deploys"][0]["finishedAt"].as_i64().expect("a time");
    let late = first - (live / 60_000 + 1) * 60_000;
    assert!((0..30_000).contains(&late), "{late} ms late");

    let data = server.data().join("apps").join(&app).join("data");
    std::fs::write(data.join("go"), "").expect("a file");
    until("it has run again", LIMIT, || runs(&mut owner, &app, "slow").len() == 2);
    let two = runs(&mut owner, &app, "slow");
    let [began, over] =
        [&two[0]["startedAt"], &two[1]["finishedAt"]].map(|at| at.as_i64().expect("a time"));
    assert!(over <= began, "{two:?}");
    assert!(began % 60_000 < 30_000, "what had passed is not made up for: {two:?}");
}

#[test]
fn what_was_missed_is_caught_up_once_and_a_killed_run_is_not_repeated() {
    let (git, mut server, mut owner) = start();
    // A number of its own.
    let long = format!("1{:05}", u16::from_be_bytes(random()));
    let sleep = format!("sleep {long}");
    // At no time that comes while this runs.
    let hour =
        (SystemTime::now().duration_since(UNIX_EPOCH).expect("now").as_secs() / 3600 + 12) % 24;
    let schedule = format!("0 {hour} * * *");
    let daily =
        |command: &str| json!([{"name": "daily", "command": command, "schedule": schedule}]);
    // They are looked at in the order of their names: once the last one has run, so has the rest.
    let stopped = live_app(&git, &mut owner, "a-stopped", &daily("true"));
    let once = live_app(&git, &mut owner, "b-once", &daily("true"));
    let killed = live_app(&git, &mut owner, "c-killed", &daily(&sleep));
    let last = live_app(&git, &mut owner, "z-last", &json!([]));
    set(&mut owner, &last, &daily("true"));
    owner.post(&format!("/api/apps/{stopped}/stop"), &json!({})).expect(202);
    assert_eq!(job(&mut owner, &stopped, "daily")["nextRunAt"], Value::Null);

    drop(owner);
    server.terminate();
    two_days_later(&server);
    let mut server = server.setup().clone().start();
    let mut owner = server.owner();
    ended(&mut owner, &last, "daily", 1);
    ended(&mut owner, &once, "daily", 1);
    let sleeps = || {
        let mut all = process::all().into_iter().map(process::arguments);
        all.any(|arguments| arguments.starts_with("sleep") && arguments.contains(&long))
    };
    until("it sleeps", LIMIT, sleeps);

    // Another one, by which to know that all were looked at again.
    let again = json!([{"name": "again", "command": "true", "schedule": schedule}]);
    set(&mut owner, &last, &again);
    drop(owner);
    server.kill9();
    until("it has ended with the server", DEPLOY_LIMIT, || !sleeps());
    two_days_later(&server);
    let server = server.setup().clone().start();
    let mut owner = server.owner();
    ended(&mut owner, &last, "again", 1);
    assert_eq!(ended(&mut owner, &killed, "daily", 1)[0]["result"], "ended with the server");
    assert!(!sleeps());
    assert_eq!(ended(&mut owner, &once, "daily", 1)[0]["result"], "exit code 0");
    assert_eq!(runs(&mut owner, &stopped, "daily"), [Value::Null; 0]);
}

#[test]
fn p32_jobs_of_one_app_leave_room_for_the_others_and_the_owner() {
    let (git, mut server, mut owner) = start();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("now").as_secs();
    // So many hours from now, none of which comes while this runs.
    let daily = |name: &str, command: &str, hours: u64| {
        let schedule = format!("0 {} * * *", (now / 3600 + hours) % 24);
        json!({"name": name, "command": command, "schedule": schedule})
    };
    let wait = "until [ -e /data/go ]; do sleep 0.05; done";
    let names = ["a", "b", "c", "d", "first"];
    let long = names.map(|name| daily(name, wait, if name == "first" { 11 } else { 12 }));
    let greedy = live_app(&git, &mut owner, "a-greedy", &json!(long));
    let other = live_app(&git, &mut owner, "other", &json!([daily("short", "true", 13)]));
    drop(owner);
    server.terminate();
    two_days_later(&server);
    let mut server = server.setup().clone().start();
    let mut owner = server.owner();
    ended(&mut owner, &other, "short", 1);
    let begun = |owner: &mut Http| -> Vec<_> {
        names.into_iter().filter(|name| !runs(owner, &greedy, name).is_empty()).collect()
    };
    assert_eq!(begun(&mut owner), ["a", "first"], "two, and whose time came first among them");
    let answer = owner.post(&format!("/api/apps/{greedy}/jobs/b/run"), &json!({})).expect(409);
    assert!(answer.message().starts_with("two jobs of the app"), "{}", answer.message());
    let path = format!("/api/apps/{greedy}/run");
    for _ in 0..2 {
        owner.post(&path, &json!({"command": wait})).expect(202);
    }

    // A server that is killed forgets none that waits.
    drop(owner);
    server.kill9();
    let server = server.setup().clone().start();
    let mut owner = server.owner();
    until("the next two run", LIMIT, || begun(&mut owner) == ["a", "b", "c", "first"]);
    // That one waits holds up no clock: what is new meanwhile is not taken as missed.
    set(&mut owner, &greedy, &json!([daily("new", "true", 12)]));
    let data = server.data().join("apps").join(&greedy).join("data");
    std::fs::write(data.join("go"), "").expect("a file");
    assert_eq!(ended(&mut owner, &greedy, "d", 1)[0]["result"], "exit code 0");
    assert_eq!(runs(&mut owner, &greedy, "new"), [Value::Null; 0]);
    assert_eq!(runs(&mut owner, &greedy, "a")[0]["result"], "ended with the server");
    let line = "The job a failed: ended with the server.";
    assert!(app_log(&mut owner, &greedy).contains(line), "as one that fails by itself");
    for name in names {
        assert_eq!(runs(&mut owner, &greedy, name).len(), 1, "{name}");
    }
}

#[test]
fn a_stopped_app_has_its_jobs_end_and_its_owners_commands_go_on() {
    let (git, _server, mut owner) = start();
    let wait = "until [ -e /data/go ]; do sleep 0.05; done";
    let declared = json!([{"name": "long", "command": wait, "schedule": FAR}]);
    let app = live_app(&git, &mut owner, "shop", &declared);
    let command = format!("{wait}; echo went on");
    let own = owner.post(&format!("/api/apps/{app}/run"), &json!({"command": command}));
    let own = own.expect(202).json();
    run_now(&mut owner, &app, "long");
    owner.post(&format!("/api/apps/{app}/stop"), &json!({})).expect(202);
    assert_eq!(ended(&mut owner, &app, "long", 1)[0]["result"], "cancelled");
    let result = |owner: &mut Http| {
        let all = owner.get(&format!("/api/apps/{app}/runs")).expect(200).json();
        let all = all["runs"].as_array().expect("runs").clone();
        all.into_iter().find(|run| run["id"] == own["id"]).expect("it")["result"].clone()
    };
    assert_eq!(result(&mut owner), Value::Null);
    let go = json!({"command": "touch /data/go"});
    owner.post(&format!("/api/apps/{app}/run"), &go).expect(202);
    until("it has ended by itself", LIMIT, || result(&mut owner) == "exit code 0");
}
