//! Lists that are written as a whole: who would undo unseen what another has written is refused.

use crate::harness::apps::create;
use crate::harness::{Answer, Http, Server};
use serde_json::{Value, json};

/// The tag of a list as it is now.
#[track_caller]
fn tag(owner: &mut Http, path: &str) -> String {
    let answer = owner.get(path).expect(200);
    answer.header("etag").expect("a tag").to_owned()
}

/// Writes a list in place of the one with this tag.
fn write(server: &Server, path: &str, list: &Value, tag: &str) -> Answer {
    let bytes = list.to_string().into_bytes();
    server.owner().with("If-Match", tag).request("PUT", path, Some(&bytes))
}

#[test]
fn a_list_that_another_has_written_meanwhile_is_neither_replaced_nor_touched() {
    let server = Server::start();
    let mut owner = server.owner();
    let app = create(&mut owner, &json!({"name": "shop", "gitRepo": "https://git.example/shop"}));
    let job = |name: &str| json!({"name": name, "command": "true", "schedule": "@daily"});
    let env = |value: &str| json!({"env": [{"name": "KEY", "value": value, "secret": true}]});
    let lists = [
        ("env", env("first"), env("second")),
        ("jobs", json!({"jobs": [job("one")]}), json!({"jobs": [job("two")]})),
    ];
    for (list, mine, theirs) in lists {
        let path = format!("/api/apps/{app}/{list}");
        let seen = tag(&mut owner, &path);
        let written = write(&server, &path, &theirs, &seen).expect(200);
        let now = written.header("etag").expect("a tag").to_owned();
        assert_eq!(now, tag(&mut owner, &path), "what a write answers, a read answers too");
        let before = owner.get(&path).json();
        for stale in [seen.as_str(), "\"\"", &format!("W/{now}"), &format!("{seen}, \"x\""), ""] {
            let refused = write(&server, &path, &mine, stale).expect(412);
            assert_eq!(refused.code(), "list_changed");
            assert!(refused.message().contains("read it again"), "{}", refused.message());
        }
        assert_eq!((owner.get(&path).json(), tag(&mut owner, &path)), (before, now.clone()));
        // One that has seen the newest, or does not ask, writes as ever.
        write(&server, &path, &mine, &format!("\"x\", {now}")).expect(200);
        assert_ne!(tag(&mut owner, &path), now, "{list}: even of a secret, which nobody sees");
        write(&server, &path, &theirs, "*").expect(200);
        owner.put(&path, &mine).expect(200);
    }
}

#[test]
fn a_list_that_is_written_as_it_was_is_the_same_list() {
    let server = Server::start();
    let mut owner = server.owner();
    let app = create(&mut owner, &json!({"name": "shop", "gitRepo": "https://git.example/shop"}));
    let path = format!("/api/apps/{app}/env");
    let env = json!({"env": [
        {"name": "LEVEL", "value": "info"}, {"name": "KEY", "value": "k", "secret": true},
    ]});
    owner.put(&path, &env).expect(200);
    let seen = tag(&mut owner, &path);
    owner.put(&path, &env).expect(200);
    assert_eq!(tag(&mut owner, &path), seen);
    // What a client was shown it may send back.
    let shown = owner.get(&path).json();
    owner.put(&path, &shown).expect(200);
    assert_eq!(tag(&mut owner, &path), seen);
}
