//! What survives the end of the server, and what does not: apps and their answers do, half-done deploys do not.

use crate::harness::apps::{deploy, deploy_live, ended};
use crate::harness::routed::{self, Client, led_to};
use crate::harness::site::{FRAGILE, HELD_BUILD, LIMIT, Site, WHOLE, files, names, sandboxes};
use crate::harness::{Http, RawConn, Setup, until};
use serde_json::json;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

impl Site {
    /// A client of the app that the router leads to, without the router.
    #[track_caller]
    fn visitor(&self, app: &str) -> Http {
        let led = led_to(&self.server, app);
        let port = led.strip_prefix("p.").and_then(|port| port.parse().ok()).expect("a port");
        Http::new(SocketAddr::from(([127, 0, 0, 1], port)))
    }

    /// The deploy has failed, and says at which step the server was gone.
    #[track_caller]
    fn was_interrupted(&mut self, deploy: &str, steps: &[&str]) {
        let now = self.owner.get(&format!("/api/deploys/{deploy}")).expect(200).json();
        let error = now["error"].as_str().unwrap_or_default();
        assert_eq!(now["status"], "failed", "{now}");
        assert!(error.contains("the server stopped while this deploy was"), "{now}");
        assert!(steps.iter().any(|step| error.contains(step)), "{now}");
        assert!(now["finishedAt"].as_i64() >= now["startedAt"].as_i64(), "{now}");
    }

    /// Nothing runs but these releases, and nothing else of a deploy is on the disk.
    #[track_caller]
    fn nothing_is_left_but(&self, app: &str, releases: &[&str]) {
        let place = self.place(app);
        until("nothing runs but the releases", LIMIT, || {
            sandboxes(&place).iter().all(|args| releases.iter().any(|r| args.contains(r)))
        });
        until("half releases are gone", LIMIT, || {
            names(&place.join("releases")).iter().all(|n| releases.iter().any(|r| n.contains(r)))
        });
        until("temporary files are gone", LIMIT, || {
            names(&place.join("tmp")).is_empty()
                && !names(&place).iter().any(|name| name.starts_with('.'))
        });
    }
}

/// Whether a file that Git makes and a killed Git leaves is below.
fn has_leftovers(directory: &Path) -> bool {
    std::fs::read_dir(directory).into_iter().flatten().flatten().any(|entry| {
        let (name, path) = (entry.file_name().to_string_lossy().into_owned(), entry.path());
        name.ends_with(".lock") || name.starts_with("tmp_") || has_leftovers(&path)
    })
}

#[test]
fn killed_at_any_step_of_a_deploy_it_starts_clean_and_running_apps_never_stop() {
    let mut site = Site::with(routed::start(Setup::routed().as_user()));
    let steady = site.app("steady");
    deploy_live(&mut site.owner, &steady);
    let app = site.app("moving");
    site.set_env(&app, "STUBBORN", "yes");
    let live = deploy_live(&mut site.owner, &app);
    let router = site.server.setup().router("HTTP_PORT");
    let caddy = routed::caddy(&site.server);
    let witnesses = ["steady.localhost", "moving.localhost"];
    let witnesses = witnesses.map(|host| Client::start(router, host, false));
    killed_while_fetching(&mut site, &app, &live);
    let queued = killed_while_building(&mut site, &app, &live);
    killed_while_proving(&mut site, &app, &[&live, &queued]);
    let switched = killed_after_the_switch(&mut site, &app);
    killed_while_going_back(&mut site, &app, &[&live, &queued, &switched]);
    for (witness, texts) in witnesses.into_iter().zip([&[WHOLE][..], &[WHOLE, SECOND]]) {
        let seen = witness.finish();
        assert_eq!(seen.failures, Vec::<String>::new());
        assert_eq!(seen.texts.keys().collect::<Vec<_>>(), texts);
    }
    assert_eq!(routed::caddy(&site.server), caddy, "the router went on");
    assert_eq!(site.log(&steady).matches("Starting release").count(), 1, "it never stopped");
}

/// What the second version of the app answers.
const SECOND: &str = "VERSION two to its end";

/// Git waits for its host.
fn killed_while_fetching(site: &mut Site, app: &str, live: &str) {
    let place = site.place(app);
    site.git.hold();
    let fetching = deploy(&mut site.owner, app);
    site.reaches(&fetching, "fetching");
    until("Git has asked", LIMIT, || site.git_asks());
    site.server.kill9();
    site.git.release();
    // What a Git leaves that was killed a moment later; and the clock has jumped back.
    plant_leftovers(&place.join("repo"));
    let later = "UPDATE deploys SET started_at = started_at + 86400000 WHERE finished_at IS NULL";
    site.change_database(later);
    site.start_again();
    site.was_interrupted(&fetching, &["fetching"]);
    site.nothing_is_left_but(app, &[live]);
}

/// Another request of the same app is in the queue, and begins with the next server.
fn killed_while_building(site: &mut Site, app: &str, live: &str) -> String {
    let place = site.place(app);
    let led = led_to(&site.server, app);
    site.change(app, &json!({"buildCommand": HELD_BUILD}));
    let building = deploy(&mut site.owner, app);
    site.reaches(&building, "building");
    until("it builds", LIMIT, || place.join("cache/begun").exists());
    let queued = deploy(&mut site.owner, app);
    site.server.kill9();
    until("the build dies with the server", LIMIT, || {
        sandboxes(&place).iter().all(|a| !a.contains("--die-with-parent"))
    });
    site.start_again();
    site.was_interrupted(&building, &["building"]);
    site.reaches(&queued, "building");
    site.nothing_is_left_but(app, &[live, &queued]);
    assert_eq!(led_to(&site.server, app), led, "the old release still serves");
    std::fs::write(place.join("cache/go"), "").unwrap();
    assert_eq!(ended(&mut site.owner, &queued)["status"], "live");
    let text = site.owner.get(&format!("/api/deploys/{building}/log")).expect(200).text();
    assert!(text.contains("Commit "), "{text}");
    assert!(!text.contains("anew") && !has_leftovers(&place.join("repo")), "{text}");
    queued
}

/// The moment its sandbox is there, and while it does not listen.
fn killed_while_proving(site: &mut Site, app: &str, kept: &[&str]) {
    let place = site.place(app);
    // It never proves itself, however long we take to look.
    site.git.commit("fragile", &files("import time; time.sleep(600)"));
    let starting = deploy(&mut site.owner, app);
    // What a build runs in has no first process of ours.
    let runs = |a: &String| a.contains(&starting) && a.contains("--as-pid-1");
    until("it is started", LIMIT, || sandboxes(&place).iter().any(runs));
    site.server.kill9();
    site.start_again();
    site.was_interrupted(&starting, &["starting", "checking"]);
    site.nothing_is_left_but(app, kept);

    let checking = deploy(&mut site.owner, app);
    site.reaches(&checking, "checking");
    site.server.kill9();
    assert!(sandboxes(&place).iter().any(|a| a.contains(&checking)));
    site.start_again();
    site.was_interrupted(&checking, &["checking"]);
    site.nothing_is_left_but(app, kept);
}

/// Whom the old process answers, it answers to the end, whatever becomes of servers. Then it does not want to go.
fn killed_after_the_switch(site: &mut Site, app: &str) -> String {
    let (place, old) = (site.place(app), site.visitor(app).address());
    let asked = place.join(format!("data/asked{}", old.port()));
    let mut held = RawConn::to(old);
    held.send("GET /wait HTTP/1.0\r\n\r\n");
    assert!(held.is_open(), "the answer has begun");
    site.git.commit("fragile", &files(&FRAGILE.replace("VERSION one", "VERSION two")));
    let switched = deploy(&mut site.owner, app);
    site.reaches(&switched, "live");
    site.server.kill9();
    site.start_again();
    site.server.terminate();
    site.start_again();
    assert!(!asked.exists(), "it was asked to end in the middle of an answer");
    std::fs::write(place.join("data/finish"), "").unwrap();
    assert!(held.answer().expect(200).text().ends_with(WHOLE));
    assert_eq!(site.visitor(app).get("/").expect(200).text(), SECOND);
    until("only the new release runs", LIMIT, || {
        let now = sandboxes(&place);
        !now.is_empty() && now.iter().all(|a| a.contains(&switched))
    });
    let asked = asked.metadata().and_then(|m| m.modified()).expect("asked");
    // 30 s, less what a busy machine takes to tell it.
    assert!(asked.elapsed().expect("a clock") > Duration::from_secs(20), "it had no time to end");
    let file = site.server.data().join("better-paas.db");
    let reader = rusqlite::Connection::open(file).expect("the database");
    until("who has gone is forgotten", LIMIT, || {
        let left = "SELECT count(*) FROM draining";
        reader.query_row(left, [], |row| row.get::<_, i64>(0)) == Ok(0)
    });
    switched
}

/// The release that it goes back to stays, and can be gone back to again.
fn killed_while_going_back(site: &mut Site, app: &str, kept: &[&str]) {
    let (place, hold) = (site.place(app), site.place(app).join("data/hold"));
    let [_, to, switched] = kept else { panic!("three releases") };
    std::fs::write(&hold, "").unwrap();
    let back = json!({"deployId": to});
    let go_back = |site: &mut Site| {
        let answer = site.owner.post(&format!("/api/apps/{app}/rollback"), &back).expect(202);
        answer.json()["id"].as_str().expect("an id").to_owned()
    };
    let going = go_back(site);
    site.reaches(&going, "checking");
    site.server.kill9();
    site.start_again();
    site.was_interrupted(&going, &["checking"]);
    until("only the live release runs", LIMIT, || {
        let now = sandboxes(&place);
        !now.is_empty() && now.iter().all(|a| a.contains(switched))
    });
    site.nothing_is_left_but(app, kept);
    assert_eq!(site.visitor(app).get("/").expect(200).text(), SECOND);
    std::fs::remove_file(&hold).unwrap();
    let gone = go_back(site);
    assert_eq!(ended(&mut site.owner, &gone)["status"], "live");
    assert_eq!(site.visitor(app).get("/").expect(200).text(), WHOLE);
}

/// What a Git leaves that was killed in the middle of a fetch and of a checkout.
fn plant_leftovers(repo: &Path) {
    let owner = std::os::unix::fs::MetadataExt::uid(&repo.metadata().expect("a cache"));
    for name in ["shallow.lock", "index.lock", "objects/pack/tmp_pack_a1b2c3"] {
        let file = repo.join(name);
        std::fs::write(&file, "").expect("a file");
        std::os::unix::fs::chown(&file, Some(owner), Some(owner)).expect("an owner");
    }
}

#[test]
fn a_newer_request_replaces_one_that_waits_and_a_stop_ends_what_is_under_way() {
    let mut site = Site::new();
    let (fetches, builds) = (site.app("fetches"), site.app("builds"));
    let end = |site: &mut Site, deploy: &str, error: &str| {
        until(&format!("its end says {error:?}"), LIMIT, || {
            let now = site.owner.get(&format!("/api/deploys/{deploy}")).expect(200).json();
            now["status"] == "failed" && now["error"].as_str().is_some_and(|e| e.contains(error))
        });
    };
    site.git.hold();
    let first = deploy(&mut site.owner, &fetches);
    site.reaches(&first, "fetching");
    let [second, third] = [(); 2].map(|()| deploy(&mut site.owner, &fetches));
    end(&mut site, &second, "replaced by a newer request");
    // The owner stops the app: nothing that was asked for before may start it again.
    site.owner.post(&format!("/api/apps/{fetches}/stop"), &json!({})).expect(202);
    for id in [first, third] {
        end(&mut site, &id, "cancelled, because the app was stopped");
    }
    site.git.release();

    // A build and a host that does not answer do not hold up the server's end.
    site.change(&builds, &json!({"buildCommand": HELD_BUILD}));
    let building = deploy(&mut site.owner, &builds);
    let begun = site.place(&builds).join("cache/begun");
    until("it builds", LIMIT, || begun.exists());
    site.git.hold();
    let fetching = deploy(&mut site.owner, &fetches);
    until("Git has asked", LIMIT, || site.git_asks());
    let (status, took) = site.server.terminate();
    assert_eq!(status.code(), Some(0), "{}", site.server.log());
    assert!(took < Duration::from_secs(10), "{took:?}");
    assert!([&fetches, &builds].iter().all(|app| sandboxes(&site.place(app)).is_empty()));
    site.git.release();
    site.start_again();
    for id in [building, fetching] {
        end(&mut site, &id, "the server was stopped; deploy again");
    }
}
