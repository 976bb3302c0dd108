//! The `release:` line of a Procfile: run once before a new release is started, where the app will run (P35).

use crate::harness::apps::{
    DEPLOY_LIMIT, PLAIN, create, deploy, deploy_live, fails, restart, roll_back, show, visitor,
};
use crate::harness::{GitServer, Http, Setup, process, random, until};
use serde_json::json;

/// It finds what the app will find, and counts how often it ran.
const PROCFILE: &str = "web: python3 -u main.py\n\
    release: echo \"migrating $(id -u) as $APP_NAME with $KEY\"; pwd; date >>/data/ran; exit ${FAIL:-0}\n";

#[test]
fn p35_a_release_command_runs_once_for_each_new_release_and_fails_its_deploy_alone() {
    let git = GitServer::start();
    let main = PLAIN[1].1.replace("b'VERSION one'", "open('/data/ran').read().encode()");
    git.commit("shop", &[("Procfile", PROCFILE), ("main.py", &main)]);
    let server = Setup::new().as_user().start();
    let mut owner = server.owner();
    let app = create(&mut owner, &json!({"name": "shop", "gitRepo": git.url("shop")}));
    let secret = crate::harness::a_token();
    let mut env = vec![json!({"name": "KEY", "value": secret, "secret": true})];
    owner.put(&format!("/api/apps/{app}/env"), &json!({"env": env})).expect(200);
    let first = deploy_live(&mut owner, &app);
    let log = owner.get(&format!("/api/deploys/{first}/log")).text();
    for line in ["Running the release command: echo", "migrating ", " as shop with ", "\n/app\n"] {
        assert!(log.contains(line), "{line}: {log}");
    }
    assert!(!log.contains(&secret), "{log}");
    let ran = || visitor(&mut server.owner(), &app).get("/").expect(200).text().lines().count();
    assert_eq!(ran(), 1);

    // Neither a restart nor a rollback makes a release.
    deploy_live(&mut owner, &app);
    assert_eq!(restart(&mut owner, &app)["status"], "live");
    roll_back(&mut owner, &app, &first);
    assert_eq!(ran(), 2);

    env.push(json!({"name": "FAIL", "value": "3", "secret": false}));
    owner.put(&format!("/api/apps/{app}/env"), &json!({"env": env})).expect(200);
    let (error, log) = fails(&mut owner, &app);
    let expected = "starting failed: the release command ended with exit code 3";
    assert!(error.starts_with(expected), "{error}");
    assert!(log.contains("what was live before goes on serving"), "{log}");
    assert_eq!(ran(), 3, "by the release before");
}

#[test]
fn a_release_command_ends_with_the_server_and_an_app_that_had_to_end_for_it_comes_back() {
    let git = GitServer::start();
    let procfile =
        "web: python3 -u main.py\nrelease: echo begun; sleep ${SLEEP:-0}; exit ${FAIL:-0}\n";
    git.commit("shop", &[("Procfile", procfile), PLAIN[1]]);
    let mut server = Setup::new().as_user().start();
    let mut owner = server.owner();
    let body = json!({"name": "shop", "gitRepo": git.url("shop"), "oneAtATime": true});
    let app = create(&mut owner, &body);
    deploy_live(&mut owner, &app);
    let set = |owner: &mut Http, name: &str, value: &str| {
        let env = json!({"env": [{"name": name, "value": value, "secret": false}]});
        owner.put(&format!("/api/apps/{app}/env"), &env).expect(200);
    };
    set(&mut owner, "FAIL", "4");
    assert!(fails(&mut owner, &app).0.contains("exit code 4"));
    let answers = |owner: &mut Http| {
        show(owner, &app)["url"].is_string()
            && visitor(owner, &app).try_request("GET", "/", None).is_ok_and(|a| a.status == 200)
    };
    until("the release before is back", DEPLOY_LIMIT, || answers(&mut owner));

    // A number of its own.
    let long = format!("1{:05}", u16::from_be_bytes(random()));
    set(&mut owner, "SLEEP", &long);
    let id = deploy(&mut owner, &app);
    until("it runs", DEPLOY_LIMIT, || {
        owner.get(&format!("/api/deploys/{id}/log")).text().contains("begun")
    });
    let sleeps = || {
        let mut all = process::all().into_iter().map(process::arguments);
        all.any(|arguments| arguments.starts_with("sleep") && arguments.contains(&long))
    };
    until("it sleeps", DEPLOY_LIMIT, sleeps);
    drop(owner);
    server.kill9();
    until("it has ended with the server", DEPLOY_LIMIT, || !sleeps());
    let server = server.setup().clone().start();
    let mut owner = server.owner();
    until("the release before is back", DEPLOY_LIMIT, || answers(&mut owner));
}
