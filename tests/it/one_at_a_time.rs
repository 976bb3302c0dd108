//! Apps that cannot run twice: one process ends before the next starts, and no request fails.

use crate::harness::apps::{PLAIN, create, deploy, deploy_live, ended, fails, restart, show};
use crate::harness::routed::{Client, STARTING, ask, led_to, release, start};
use crate::harness::server::free_port;
use crate::harness::{GitServer, Setup, Ws, until};
use serde_json::json;

const HOST: &str = "shop.localhost";

/// A release that says so when another process of the app is there, by a lock in `/data`.
fn lonely(version: &str) -> Vec<(&str, &str)> {
    let mut files = release(version);
    files[0] = (
        "Procfile",
        "web: exec flock --nonblock --conflict-exit-code 77 /data/lock python3 main.py\n",
    );
    files
}

#[test]
fn an_app_with_a_port_of_its_own_gets_it_and_no_deploy_of_it_fails_a_request() {
    let git = GitServer::start();
    let server = start(Setup::routed().as_user());
    let router = server.setup().router("HTTP_PORT");
    let mut owner = server.owner();
    let port = free_port();
    let always = format!(
        "echo listening at 127.0.0.1:{port}; PORT={port} exec flock --nonblock /data/lock python3 main.py"
    );
    git.commit("shop", &release("one"));
    let body = json!({
        "name": "shop", "gitRepo": git.url("shop"), "startCommand": always, "healthTimeoutSeconds": 8,
    });
    let app = create(&mut owner, &body);
    let path = format!("/api/apps/{app}");

    // What it says, or where it listens, is the cure.
    let id = deploy(&mut owner, &app);
    let error = ended(&mut owner, &id)["error"].as_str().expect("an error").to_owned();
    assert!(
        error.contains(&format!("If it always listens at {port}, set its port to {port}")),
        "{error}"
    );
    owner.patch(&path, &json!({"port": port})).expect(200);
    deploy_live(&mut owner, &app);
    assert_eq!(led_to(&server, &app), format!("p.{port}"));

    let clients = [true, false].map(|keeps| Client::start(router, HOST, keeps));
    for round in 0..4 {
        let version = format!("round {round}");
        git.commit("shop", &release(&version));
        deploy_live(&mut owner, &app);
        assert_eq!(ask(router, HOST, &mut None).as_deref(), Ok(version.as_str()));
    }
    assert_eq!(restart(&mut owner, &app)["status"], "live");

    // One that does not prove itself makes room for the one before, which answers what waited.
    let mut broken = release("broken");
    broken[1] = ("main.py", "raise SystemExit(5)");
    git.commit("shop", &broken);
    let id = deploy(&mut owner, &app);
    let end = ended(&mut owner, &id);
    assert!(end["error"].as_str().is_some_and(|e| e.contains("exit code 5")), "{end:#}");
    assert_eq!(ask(router, HOST, &mut None).as_deref(), Ok("round 3"));
    until("it runs again", STARTING, || show(&mut owner, &app)["status"] == "running");
    for seen in clients.map(Client::finish) {
        assert_eq!(seen.failures, Vec::<String>::new(), "{:?}", seen.texts);
        assert!(seen.texts.contains_key("one") && seen.texts.contains_key("round 3"), "{seen:?}");
        assert!(!seen.texts.contains_key("broken"), "{seen:?}");
    }

    // Nobody else gets it, and nobody the server's.
    let own = "is this server's own";
    for (port, status, why) in [
        (port, 409, "is app shop's"),
        (router.port(), 409, own),
        (server.address().port(), 409, own),
        (20_000, 400, "must be a port from"),
    ] {
        let body = json!({"name": "other", "gitRepo": git.url("shop"), "port": port});
        let answer = owner.post("/api/apps", &body).expect(status).text();
        assert!(answer.contains(why), "{answer}");
    }
}

#[test]
fn an_app_that_runs_one_at_a_time_is_never_there_twice_whatever_ends_the_server() {
    let git = GitServer::start();
    let server = start(Setup::routed().as_user());
    let mut owner = server.owner();
    git.commit("shop", &lonely("one"));
    let body = json!({"name": "shop", "gitRepo": git.url("shop"), "oneAtATime": true});
    let app = create(&mut owner, &body);
    deploy_live(&mut owner, &app);
    git.commit("shop", &lonely("two"));
    deploy_live(&mut owner, &app);
    assert_eq!(ask(server.setup().router("HTTP_PORT"), HOST, &mut None).as_deref(), Ok("two"));

    // Beside one another the second finds the lock taken.
    owner.patch(&format!("/api/apps/{app}"), &json!({"oneAtATime": false})).expect(200);
    assert!(fails(&mut owner, &app).0.contains("exit code 77"));
    owner.patch(&format!("/api/apps/{app}"), &json!({"oneAtATime": true})).expect(200);

    // Killed while the new one is checked: the one before comes back, and the other does not stay.
    let mut silent = lonely("silent");
    silent[1] = ("main.py", "import time; print('silent', flush=True); time.sleep(600)");
    git.commit("shop", &silent);
    deploy(&mut owner, &app);
    let mut log = || owner.get(&format!("/api/apps/{app}/log")).expect(200).text();
    until("it is there alone", STARTING, || log().contains("silent"));
    let starts = |log: &str| log.matches("Starting release").count();
    let before = starts(&log());
    owner.post(&format!("/api/apps/{app}/start"), &json!({})).expect(202);
    drop(owner);
    let mut server = server;
    server.kill9();
    let server = start(server.setup().clone());
    let router = server.setup().router("HTTP_PORT");
    until("the one before answers", STARTING, || {
        ask(router, HOST, &mut None).as_deref() == Ok("two")
    });
    let mut owner = server.owner();
    until("it runs", STARTING, || show(&mut owner, &app)["status"] == "running");
    let log = owner.get(&format!("/api/apps/{app}/log")).expect(200).text();
    assert_eq!(starts(&log), before + 1, "nothing was started beside it: {log}");

    // Stopped while the new one is checked, it stays so.
    let id = deploy(&mut owner, &app);
    until("it is checked", STARTING, || {
        owner.get(&format!("/api/deploys/{id}")).json()["status"] == "checking"
    });
    owner.post(&format!("/api/apps/{app}/stop"), &json!({})).expect(202);
    assert_eq!(ended(&mut owner, &id)["status"], "failed");
    until("it is stopped", STARTING, || {
        show(&mut owner, &app)["status"] == "stopped" && led_to(&server, &app) == "d"
    });
    owner.post(&format!("/api/apps/{app}/start"), &json!({})).expect(202);
    until("it answers", STARTING, || ask(router, HOST, &mut None).as_deref() == Ok("two"));
}

#[test]
fn a_deploy_right_after_a_stop_waits_until_the_process_has_ended() {
    let git = GitServer::start();
    let server = start(Setup::routed().as_user());
    let mut owner = server.owner();
    let slow = format!(
        "import signal, time\n\
         signal.signal(signal.SIGTERM, lambda *_: (time.sleep(3), os._exit(0)))\n{}",
        PLAIN[1].1
    );
    git.commit("shop", &[lonely("one")[0], ("main.py", slow.as_str())]);
    let body = json!({"name": "shop", "gitRepo": git.url("shop"), "oneAtATime": true});
    let app = create(&mut owner, &body);
    deploy_live(&mut owner, &app);
    owner.post(&format!("/api/apps/{app}/stop"), &json!({})).expect(202);
    deploy_live(&mut owner, &app);
}

#[test]
fn a_process_becomes_a_site_with_workers_and_no_request_fails() {
    let git = GitServer::start();
    let server = start(Setup::routed().as_user());
    let router = server.setup().router("HTTP_PORT");
    let mut owner = server.owner();
    git.commit("shop", &release("one"));
    let body = json!({"name": "shop", "gitRepo": git.url("shop"), "oneAtATime": true});
    let app = create(&mut owner, &body);
    deploy_live(&mut owner, &app);
    let clients = [true, false].map(|keeps| Client::start(router, HOST, keeps));
    let worker = "release: sleep 1\nworker: echo at work; exec sleep 600\n";
    git.commit("shop", &[("Procfile", worker), ("index.html", "VERSION two")]);
    deploy_live(&mut owner, &app);
    until("the worker is there", STARTING, || {
        owner.get(&format!("/api/apps/{app}/log")).text().contains("worker.1 | at work")
    });
    for seen in clients.map(Client::finish) {
        assert_eq!(seen.failures, Vec::<String>::new(), "{:?}", seen.texts);
    }
}

#[test]
fn stopped_and_started_in_such_a_deploy_the_release_before_waits_for_the_end_of_the_next() {
    let git = GitServer::start();
    let server = Setup::new().as_user().start();
    let mut owner = server.owner();
    git.commit("shop", &lonely("one"));
    let body = json!({"name": "shop", "gitRepo": git.url("shop"), "oneAtATime": true});
    let app = create(&mut owner, &body);
    deploy_live(&mut owner, &app);
    let stays = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN)
print('silent', flush=True); time.sleep(600)";
    git.commit("shop", &[lonely("")[0], ("main.py", stays)]);
    deploy(&mut owner, &app);
    let path = format!("/api/apps/{app}");
    let log = format!("{path}/log");
    until("the next one is there", STARTING, || owner.get(&log).text().contains("silent"));
    for what in ["stop", "start"] {
        owner.post(&format!("{path}/{what}"), &json!({})).expect(202);
    }
    until("it runs again", STARTING, || {
        let log = owner.get(&log).text();
        assert!(!log.contains("exit code 77"), "beside the next one: {log}");
        log.matches("Starting release").count() == 3
            && show(&mut owner, &app)["status"] == "running"
    });
}

#[test]
fn a_server_that_is_stopped_in_such_a_deploy_leaves_the_release_before_running() {
    let git = GitServer::start();
    let mut server = start(Setup::routed().as_user());
    let router = server.setup().router("HTTP_PORT");
    let mut owner = server.owner();
    git.commit("shop", &lonely("one"));
    let body = json!({"name": "shop", "gitRepo": git.url("shop"), "oneAtATime": true});
    let app = create(&mut owner, &body);
    deploy_live(&mut owner, &app);
    let at = led_to(&server, &app);

    // In the middle of its last answers: it is not even ended.
    let mut socket = Ws::at(router, "/ws").with("Host", HOST).open().expect("a WebSocket");
    let id = deploy(&mut owner, &app);
    until("its end has begun", STARTING, || {
        owner.get(&format!("/api/apps/{app}/log")).text().contains("for the next one to start")
    });
    owner.post(&format!("/api/deploys/{id}/cancel"), &json!({})).expect(202);
    assert_eq!(ended(&mut owner, &id)["status"], "failed");
    until("it is led to again", STARTING, || {
        ask(router, HOST, &mut None).as_deref() == Ok("one") && led_to(&server, &app) == at
    });
    assert!(socket.is_alive(), "a WebSocket was cut");
    drop(socket);

    // While the next one is checked: that ends, and the one before is started again.
    let mut silent = lonely("silent");
    silent[1] = ("main.py", "import time; print('silent', flush=True); time.sleep(600)");
    git.commit("shop", &silent);
    deploy(&mut owner, &app);
    until("it is there alone", STARTING, || {
        owner.get(&format!("/api/apps/{app}/log")).text().contains("silent")
    });
    drop(owner);
    let (status, _) = server.terminate();
    assert!(status.success(), "{status}");
    let answers = || ask(router, HOST, &mut None).as_deref() == Ok("one");
    until("it answers though no server runs", STARTING, answers);
    let server = start(server.setup().clone());
    until("it runs", STARTING, || show(&mut server.owner(), &app)["status"] == "running");
    assert_eq!(ask(router, HOST, &mut None).as_deref(), Ok("one"));
}
