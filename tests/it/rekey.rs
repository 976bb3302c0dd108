//! Another encryption key (P17, P19), and the lost one.

use crate::harness::apps::create;
use crate::harness::sealed::{Database, forge_v1, key_id};
use crate::harness::server::mode;
use crate::harness::wait::let_pass;
use crate::harness::webhook::NOWHERE;
use crate::harness::{Http, Server, Setup, hex, random};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// Apps with a Git token, a webhook and this many variables each, and a GitHub token.
fn fill(server: &Server, apps: usize, variables: usize) -> Vec<String> {
    let mut owner = server.owner();
    owner.put("/api/settings/github-token", &json!({"token": "ghp_of-all"})).expect(200);
    let app = |n: usize| {
        let app = json!({"name": format!("app{n}"), "gitRepo": NOWHERE, "gitToken": "ghp_of-one"});
        let id = create(&mut server.owner(), &app);
        server.owner().request("POST", &format!("/api/apps/{id}/webhook"), None).expect(200);
        let env: Vec<_> = (0..variables)
            .map(|v| json!({"name": format!("NAME_{v}"), "value": format!("value-{n}-{v}"), "secret": v % 2 == 1}))
            .collect();
        server.owner().put(&format!("/api/apps/{id}/env"), &json!({"env": env})).expect(200);
        id
    };
    (0..apps).map(app).collect()
}

/// The ids of the keys that values are sealed with, and that no value is in the clear.
fn keys_of(database: &Database) -> BTreeSet<String> {
    let all = database.texts();
    assert!(all.iter().all(|(_, text)| !text.contains("value-0-0") && !text.contains("ghp_of-")));
    let sealed = all.iter().filter_map(|(_, text)| text.strip_prefix("enc:v2:"));
    sealed.map(|rest| rest.split(':').next().unwrap().to_owned()).collect()
}

fn key_in(file: &Path) -> String {
    let text = std::fs::read_to_string(file).unwrap();
    let bytes = data_encoding::HEXLOWER.decode(text.trim().as_bytes()).unwrap();
    key_id(&bytes.try_into().unwrap())
}

/// The id that the name of a file ends with.
fn said_by(file: &Path) -> &str {
    file.extension().unwrap().to_str().unwrap()
}

fn is_readable(owner: &mut Http, app: &str, n: usize) -> bool {
    let env = owner.get(&format!("/api/apps/{app}/env")).expect(200).json();
    env["env"][0]["value"] == format!("value-{n}-0").as_str()
}

#[test]
fn p19_everything_moves_to_another_key_beside_four_writers_and_nothing_of_the_old_one_stays() {
    let server = Server::start();
    let apps = fill(&server, 6, 40);
    let done = AtomicBool::new(false);
    let file = server.data().join("secret.key");
    let (mut old, mut kept) = (Vec::new(), Vec::new());
    std::thread::scope(|scope| {
        for app in &apps[2..6] {
            let (done, server) = (&done, &server);
            scope.spawn(move || {
                let mut owner = server.owner();
                for n in 0.. {
                    let value = format!("written-{n}");
                    let env = json!({"env": [{"name": "COUNT", "value": value}]});
                    owner.put(&format!("/api/apps/{app}/env"), &env).expect(200);
                    let token = json!({"gitToken": format!("ghp_{n}"), "branch": "b"});
                    owner.patch(&format!("/api/apps/{app}"), &token).expect(200);
                    let shown = owner.get(&format!("/api/apps/{app}/env")).expect(200).json();
                    assert_eq!(shown["env"][0]["value"], value);
                    if done.load(Ordering::SeqCst) {
                        return;
                    }
                }
            });
        }
        for _ in 0..4 {
            old.extend(
                Database::beside(&server)
                    .texts()
                    .into_iter()
                    .filter(|(_, t)| t.starts_with("enc:")),
            );
            let before = key_in(&file);
            let finished = server.operator(&["rekey"]);
            assert_eq!(finished.code, Some(0), "{finished:?}");
            kept.push(server.data().join(format!("secret.key.{before}")));
            let said = kept.last().unwrap().to_str().unwrap();
            assert!(finished.stdout.contains(said), "{finished:?}");
            assert_ne!(key_in(&file), before);
            assert!(kept.iter().all(|old| mode(old) == 0o600 && said_by(old) == key_in(old)));
            assert_eq!(mode(&file), 0o600);
        }
        done.store(true, Ordering::SeqCst);
    });
    assert!(is_readable(&mut server.owner(), &apps[0], 0));
    let finished = server.operator(&["rekey"]);
    assert_eq!(finished.code, Some(0), "{finished:?}");
    for name in ["better-paas.db", "better-paas.db-wal"] {
        let bytes = std::fs::read(server.data().join(name)).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let left = old.iter().filter(|(_, envelope)| text.contains(envelope.as_str())).count();
        assert_eq!(left, 0, "of {} old envelopes in {name}", old.len());
    }
    let database = Database::of(server.stop());
    assert_eq!(keys_of(&database), BTreeSet::from([key_in(&file)]));
    let server = database.setup().start();
    assert!(server.log().contains(&format!("encryption key {}, from the file ", key_in(&file))));
    assert!((0..2).all(|n| is_readable(&mut server.owner(), &apps[n], n)));
}

#[test]
fn p19_killed_at_any_moment_one_of_two_keys_is_in_force_and_the_next_start_says_which() {
    /// From before the first step until after the last one.
    const MOMENTS: u32 = 50;
    let mut server = Server::start();
    let apps = fill(&server, 8, 200);
    let began = Instant::now();
    assert_eq!(server.operator(&["rekey"]).code, Some(0));
    // From the command's start to its end; the kills go beyond that.
    let span = began.elapsed().mul_f64(1.2);
    let file = server.data().join("secret.key");
    let (mut old_stayed, mut new_came, mut cut_short) = (0, 0, 0);
    for moment in 0..MOMENTS {
        let before = key_in(&file);
        let mut command = server.setup().spawn(&["rekey"], Stdio::null);
        let_pass(span * moment / MOMENTS);
        server.kill9();
        command.wait().unwrap();
        let setup = server.setup().clone();
        drop(server);
        server = setup.start();
        let keys = keys_of(&Database::beside(&server));
        let in_force = key_in(&file);
        assert_eq!(keys, BTreeSet::from([in_force.clone()]), "never a mixture");
        assert!(
            server.log().contains(&format!("encryption key {in_force}, from ")),
            "{}",
            server.log()
        );
        if in_force == before {
            old_stayed += 1
        } else {
            new_came += 1
        }
        cut_short +=
            u32::from(server.log().contains("a change of the encryption key was cut short"));
        let app = usize::try_from(moment).unwrap() % apps.len();
        assert!(is_readable(&mut server.owner(), &apps[app], app));
    }
    eprintln!(
        "{old_stayed} times the old key, {cut_short} of them put back; {new_came} the new one; {span:?}"
    );
    assert!(old_stayed > 0 && new_came > 0);
    // The moment between the new key's file and the commit, which is too short to be met for sure.
    let before = key_in(&file);
    let setup = server.stop();
    std::fs::rename(&file, file.with_extension(format!("key.{before}"))).unwrap();
    std::fs::write(&file, hex(&random::<32>())).unwrap();
    let never_in_force = key_in(&file);
    let server = setup.start();
    assert!(server.log().contains("a change of the encryption key was cut short"));
    assert_eq!(key_in(&file), before);
    let beside = file.with_extension(format!("key.{never_in_force}"));
    assert_eq!(key_in(&beside), never_in_force, "the log may yet have it");
    assert!(is_readable(&mut server.owner(), &apps[0], 0));
}

#[test]
fn p17_older_forms_are_upgraded_by_a_rekey_with_a_given_key() {
    let server = Server::start();
    let apps = fill(&server, 1, 3);
    let file = server.data().join("secret.key");
    let old: [u8; 32] = {
        let text = std::fs::read_to_string(&file).unwrap();
        data_encoding::HEXLOWER.decode(text.trim().as_bytes()).unwrap().try_into().unwrap()
    };
    let database = Database::of(server.stop());
    database.set_env(&apps[0], "NAME_0", "legacy cleartext");
    database.set_env(&apps[0], "NAME_2", &forge_v1(&old, "of version 1"));
    database.run("UPDATE settings SET value = 'legacy token' WHERE name = 'github_token'");
    let server = database.setup().start();
    let new = random::<32>();
    let given = server.setup().home().join("new");
    std::fs::write(&given, "no key").unwrap();
    let refused = server.operator(&["rekey", "--key-file", given.to_str().unwrap()]);
    assert!(refused.code == Some(1) && refused.stderr.contains("32 bytes"), "{refused:?}");
    assert_eq!(key_in(&file), key_id(&old), "nothing was changed");
    std::fs::write(&given, hex(&new)).unwrap();
    let taken = server.operator(&["rekey", "--key-file", given.to_str().unwrap()]);
    assert_eq!(taken.code, Some(0), "{taken:?}");
    assert_eq!(key_in(&file), key_id(&new));
    let env = server.owner().get(&format!("/api/apps/{}/env", apps[0])).expect(200).json();
    assert_eq!(env["env"][0]["value"], "legacy cleartext");
    assert_eq!(env["env"][2]["value"], "of version 1");
    let database = Database::of(server.stop());
    assert_eq!(keys_of(&database), BTreeSet::from([key_id(&new)]));
    assert!(
        database
            .texts()
            .iter()
            .all(|(_, text)| !text.contains("legacy") && !text.starts_with("enc:v1"))
    );
    // The old key opens nothing any more.
    let wrong = database.setup().env("BETTER_PAAS_SECRET_KEY", &hex(&old)).run(&[]);
    assert!(wrong.code == Some(1) && wrong.stderr.contains(&key_id(&new)), "{wrong:?}");
    database.setup().start();
}

#[test]
fn p19_a_key_that_something_pins_is_not_changed() {
    let key = random::<32>();
    let server = Setup::new().env("BETTER_PAAS_SECRET_KEY", &hex(&key)).start();
    fill(&server, 1, 1);
    // Also where the file has the same one.
    std::fs::write(server.data().join("secret.key"), hex(&key)).unwrap();
    let refused = server.operator(&["rekey"]);
    assert!(
        refused.code == Some(1) && refused.stderr.contains("is pinned by BETTER_PAAS"),
        "{refused:?}"
    );
    let database = Database::of(server.stop());
    assert_eq!(keys_of(&database), BTreeSet::from([key_id(&key)]));
    // The way that the sentence says.
    let server = database.setup().without("BETTER_PAAS_SECRET_KEY").start();
    assert_eq!(server.operator(&["rekey"]).code, Some(0));
    assert!(!keys_of(&Database::beside(&server)).contains(&key_id(&key)));
}

#[test]
fn p18_a_value_that_does_not_open_stops_a_rekey_before_it_changes_anything() {
    let server = Server::start();
    let apps = fill(&server, 1, 2);
    let database = Database::of(server.stop());
    let foreign = "enc:v2:00000000:AAAA";
    database.set_env(&apps[0], "NAME_1", foreign);
    let server = database.setup().start();
    let file = server.data().join("secret.key");
    let before = key_in(&file);
    for _ in 0..2 {
        let refused = server.operator(&["rekey"]);
        assert!(refused.code == Some(1) && refused.stderr.contains("NAME_1"), "{refused:?}");
        assert_eq!(key_in(&file), before);
        let names = std::fs::read_dir(server.data()).unwrap().flatten().map(|e| e.file_name());
        let keys = names.filter(|name| name.to_str().unwrap().starts_with("secret.key"));
        assert_eq!(keys.count(), 1, "a key that was never in force takes no place");
    }
    let database = Database::of(server.restart().stop());
    assert_eq!(database.env(&apps[0], "NAME_1"), foreign);
    assert_eq!(keys_of(&database), BTreeSet::from([before, "00000000".to_owned()]));
}

#[test]
fn with_a_lost_or_a_wrong_key_it_is_said_what_would_be_given_up_and_nothing_is() {
    let server = Server::start();
    fill(&server, 1, 2);
    let refused = server.operator(&["rekey", "--mark-lost", "--yes"]);
    assert!(refused.code == Some(1) && refused.stderr.contains("another server"), "{refused:?}");
    let database = Database::of(server.stop());
    let (setup, file) = (database.setup(), database.setup().data().join("secret.key"));
    let key = std::fs::read(&file).unwrap();
    let everything = || database.texts();
    let before = everything();
    // With a wrong key, and with none, it says what would be lost and does nothing.
    for wrong in [Some(hex(&random::<32>())), None] {
        std::fs::remove_file(&file).unwrap();
        let wrong_one =
            wrong.iter().fold(setup.clone(), |setup, key| setup.env("BETTER_PAAS_SECRET_KEY", key));
        let start = wrong_one.run(&[]);
        assert_eq!(start.code, Some(1), "{start:?}");
        let said = wrong_one.run(&["rekey", "--mark-lost"]);
        assert_eq!(said.code, Some(1), "{said:?}");
        for name in [
            "app0: Git token",
            "app0: webhook secret",
            "app0: NAME_0",
            "app0: NAME_1",
            "settings: github_token",
            "--yes",
        ] {
            assert!(said.stderr.contains(name), "{name}: {said:?}");
        }
        assert!(before == everything() && !file.exists());
        std::fs::write(&file, &key).unwrap();
    }
    // With a wrong one that hides the right one, nothing is given up.
    let hidden = setup.clone().env("BETTER_PAAS_SECRET_KEY", &hex(&random::<32>()));
    for name in ["secret.key", "secret.key.old", "secret.key.of-before"] {
        std::fs::rename(&file, setup.data().join(name)).unwrap();
        let refused = hidden.run(&["rekey", "--mark-lost", "--yes"]);
        let names = refused.stderr.contains(&format!("{name}, so nothing is lost"));
        assert!(refused.code == Some(1) && names, "{refused:?}");
        assert!(before == everything());
        std::fs::rename(setup.data().join(name), &file).unwrap();
    }
    // With the right one nothing is lost, whoever insists, and no copy of before is replaced.
    let before = everything();
    for words in [&["rekey", "--mark-lost"][..], &["rekey", "--mark-lost", "--yes"]] {
        let nothing = setup.run(words);
        assert!(
            nothing.code == Some(0) && nothing.stdout.contains("nothing is lost"),
            "{nothing:?}"
        );
    }
    assert!(before == everything());
}

#[test]
fn what_was_lost_with_a_key_is_named_until_it_is_given_anew_and_all_else_goes_on() {
    let server = Server::start();
    let apps = fill(&server, 1, 2);
    let setup = server.stop();
    let file = setup.data().join("secret.key");
    std::fs::remove_file(&file).unwrap();
    let lost = setup.run(&["rekey", "--mark-lost", "--yes"]);
    assert!(lost.code == Some(0) && lost.stdout.contains("app0: NAME_1"), "{lost:?}");
    let copy = setup.data().join("before-update/newest/better-paas.db");
    assert!(copy.is_file() && lost.stdout.contains("before-update/newest"), "{lost:?}");
    let server = setup.start();
    let (mut owner, app) = (server.owner(), format!("/api/apps/{}", apps[0]));
    let names = json!(["Git token", "webhook secret", "NAME_0", "NAME_1"]);
    assert_eq!(owner.get(&app).expect(200).json()["lost"], names);
    assert_eq!(
        owner.get("/api/settings/github-token").json(),
        json!({"saved": false, "savedAt": null})
    );
    let env = owner.get(&format!("{app}/env")).expect(200).json();
    assert_eq!(env["env"][0], json!({"name": "NAME_0", "secret": false}));
    let acts: Vec<Value> = owner.get("/api/audit").json()["audit"].as_array().unwrap().clone();
    let told =
        acts.iter().filter(|row| row["act"].as_str().unwrap().starts_with("rekey --mark-lost "));
    assert_eq!(told.count(), 5);
    // A save of something else keeps the mark; the value itself, given anew, mends it.
    owner
        .put(
            &format!("{app}/env"),
            &json!({"env": [{"name": "NAME_0"}, {"name": "NAME_1", "value": "b"}]}),
        )
        .expect(200);
    assert_eq!(owner.get(&app).json()["lost"], json!(["Git token", "webhook secret", "NAME_0"]));
    let deploy = owner.post(&format!("{app}/deploys"), &json!({}));
    assert!(deploy.status == 202 || deploy.status == 503, "{}", deploy.text());
    owner
        .put(&format!("{app}/env"), &json!({"env": [{"name": "NAME_0", "value": "a"}]}))
        .expect(200);
    owner.patch(&app, &json!({"gitToken": "ghp_again"})).expect(200);
    owner.request("DELETE", &format!("{app}/webhook"), None).expect(204);
    assert_eq!(owner.get(&app).json()["lost"], json!([]));
    // What is left is sealed with the key that was made.
    owner.put("/api/settings/github-token", &json!({"token": "ghp_new"})).expect(200);
    assert_eq!(server.operator(&["rekey"]).code, Some(0));
    let database = Database::of(server.stop());
    assert_eq!(keys_of(&database), BTreeSet::from([key_in(&file)]));
}
