//! What is kept of deploys: their commits, their steps, and what can be gone back to.

use crate::harness::apps::{PLAIN, create, deploy, deploy_live, ended};
use crate::harness::{GitServer, Http, Setup, routed};
use serde_json::{Value, json};

/// The deploys of an app, the newest first.
fn history(owner: &mut Http, app: &str) -> Vec<Value> {
    let list = owner.get(&format!("/api/apps/{app}/deploys?limit=100")).expect(200).json();
    list["deploys"].as_array().expect("a list").clone()
}

#[test]
fn a_deploy_says_that_it_can_be_gone_back_to_exactly_where_that_works() {
    let git = GitServer::start();
    git.commit("plain", &PLAIN);
    git.commit("site", &[("index.html", "a site")]);
    let server = routed::start(Setup::routed().as_user());
    let mut owner = server.owner();
    let plain = create(&mut owner, &json!({"name": "plain", "gitRepo": git.url("plain")}));
    let site = create(&mut owner, &json!({"name": "site", "gitRepo": git.url("site")}));
    // One more than are kept, besides the live one.
    for _ in 0..7 {
        deploy_live(&mut owner, &plain);
    }
    owner.patch(&format!("/api/apps/{plain}"), &json!({"startCommand": "false"})).expect(200);
    let failed = deploy(&mut owner, &plain);
    assert_eq!(ended(&mut owner, &failed)["status"], "failed");
    let gone = deploy_live(&mut owner, &site);
    deploy_live(&mut owner, &site);
    std::fs::remove_dir_all(server.data().join(format!("sites/{site}/{gone}"))).expect("files");

    for (app, expected) in
        [(&plain, &[false, true, true, true, true, true, true, false][..]), (&site, &[true, false])]
    {
        let deploys = history(&mut owner, app);
        let can = deploys.iter().map(|d| d["canRollBack"].as_bool().expect("a word"));
        assert_eq!(can.collect::<Vec<_>>(), expected);
        for (deploy, can) in deploys.iter().zip(expected) {
            let back = owner
                .post(&format!("/api/apps/{app}/rollback"), &json!({"deployId": deploy["id"]}));
            let back = back.expect(if *can { 202 } else { 409 }).json();
            if *can {
                // Before it can end and have an old release pruned.
                let id = back["id"].as_str().expect("an id");
                owner.post(&format!("/api/deploys/{id}/cancel"), &json!({}));
            }
        }
    }
}

#[test]
fn a_deploy_keeps_its_commits_author_and_the_times_of_its_steps() {
    let git = GitServer::start();
    git.commit("plain", &PLAIN);
    let server = Setup::new().as_user().start();
    let mut owner = server.owner();
    let app = create(&mut owner, &json!({"name": "plain", "gitRepo": git.url("plain")}));
    let id = deploy_live(&mut owner, &app);
    let back = owner.post(&format!("/api/apps/{app}/rollback"), &json!({"deployId": id}));
    let back = back.expect(202).json()["id"].as_str().expect("an id").to_owned();
    ended(&mut owner, &back);
    let server = server.restart();
    let mut owner = server.owner();
    let all = ["fetching", "building", "starting", "checking"];
    for (id, expected) in [(id, &all[..]), (back, &all[2..])] {
        let now = owner.get(&format!("/api/deploys/{id}")).expect(200).json();
        assert_eq!(
            (&now["commitAuthor"], &now["commitMessage"]),
            (&json!("Test"), &json!("A change"))
        );
        let steps = now["steps"].as_array().expect("steps");
        assert_eq!(steps.iter().map(|s| s["step"].as_str().unwrap()).collect::<Vec<_>>(), expected);
        let ends = steps[1..].iter().map(|s| &s["startedAt"]).chain([&now["finishedAt"]]);
        assert!(steps.iter().map(|s| &s["finishedAt"]).eq(ends), "{now:#}");
        assert_eq!(steps[0]["startedAt"], now["startedAt"]);
    }
}
