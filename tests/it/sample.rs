//! The app that the program brings along, and apps without a repository.

use crate::harness::apps::{deploy_live, fails, show};
use crate::harness::{GitServer, Setup};
use serde_json::{Value, json};

#[test]
fn one_command_deploys_the_sample_which_needs_no_repository_until_it_gets_one() {
    let server = Setup::routed().as_user().start();
    let mut owner = server.owner();
    // Twice: the second time it is another deploy of the same app.
    for _ in 0..2 {
        let done = server.operator(&["deploy", "--sample"]);
        assert_eq!((done.code, done.stderr.as_str()), (Some(0), ""), "{done:?}");
        assert!(done.stdout.contains("Live"), "{done:?}");
    }
    let apps = owner.get("/api/apps").json()["apps"].clone();
    let [sample] = apps.as_array().unwrap().as_slice() else { panic!("{apps}") };
    assert_eq!((&sample["name"], &sample["gitRepo"]), (&json!("better-paas-sample"), &Value::Null));
    let page = server.visitor("better-paas-sample.localhost").get("/").expect(200).text();
    assert!(page.contains("It runs."), "{page}");
    let id = sample["id"].as_str().unwrap().to_owned();
    let (error, _) = fails(&mut owner, &id);
    assert!(error.contains("this app has no repository; send an archive"), "{error}");
    server.visitor("better-paas-sample.localhost").get("/style.css").expect(200);
    // A token without a repository is for nobody, and no later repository gets it.
    let at = format!("/api/apps/{id}");
    owner.patch(&at, &json!({"gitToken": "t0p-secret-token"})).expect(200);
    assert_eq!(show(&mut owner, &id)["hasGitToken"], false);
    let git = GitServer::start();
    git.commit("sample", &[("index.html", "from Git")]);
    owner.patch(&at, &json!({"gitRepo": git.url("sample")})).expect(200);
    deploy_live(&mut owner, &id);
    assert_eq!(
        server.visitor("better-paas-sample.localhost").get("/").expect(200).text(),
        "from Git"
    );
    // An app of the owner's own with that name is not touched.
    let refused = server.operator(&["deploy", "--sample"]);
    assert!(refused.code == Some(1) && refused.stderr.contains("one of your own"), "{refused:?}");
}
