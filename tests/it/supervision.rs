//! Apps are looked after: crashes, reboots, the pids and ports of others, several apps at once.

use crate::harness::apps::{deploy, deploy_live, ended, show, visitor};
use crate::harness::site::{HELD_BUILD, LIMIT, Site, WHOLE, names, sandboxes};
use crate::harness::{RawConn, Setup, process, until};
use serde_json::json;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::Duration;

#[test]
fn a_crash_is_told_as_it_was_and_the_pauses_grow_also_across_servers() {
    let mut site = Site::new();
    let app = site.app("fragile");
    deploy_live(&mut site.owner, &app);
    let ends = |site: &mut Site, how: &str, detail: &str, line: &str| {
        let again = line.ends_with("in 2 s.");
        let (down, up) =
            if again { ("crash-looping", "crash-looping") } else { ("crashed", "running") };
        let _cut = visitor(&mut site.owner, &app).try_request("GET", how, None);
        until(&format!("the status says {detail}"), LIMIT, || {
            let now = show(&mut site.owner, &app);
            now["status"] == down && now["statusDetail"] == detail
        });
        assert!(show(&mut site.owner, &app)["url"].is_null());
        let log = site.log(&app);
        assert!(log.contains(line), "{log}");
        until("it runs again", LIMIT, || {
            let now = show(&mut site.owner, &app);
            now["status"] == up
                && now["url"].is_string()
                && visitor(&mut site.owner, &app).try_request("GET", "/", None).is_ok()
        });
    };
    ends(&mut site, "/exit", "exit code 7", "Ended with exit code 7; starting it again in 1 s.");
    ends(&mut site, "/kill", "signal 9", "Ended with signal 9; starting it again in 2 s.");

    // A server that is not its parent knows as well.
    site.server.kill9();
    site.start_again();
    ends(&mut site, "/exit", "exit code 7", "Ended with exit code 7; starting it again in 1 s.");

    // Even when there was no server at that moment.
    let mut client = visitor(&mut site.owner, &app);
    site.server.kill9();
    let _cut = client.try_request("GET", "/kill", None);
    let place = site.place(&app);
    until("it has ended", LIMIT, || sandboxes(&place).is_empty());
    site.start_again();
    until("it runs again", LIMIT, || {
        show(&mut site.owner, &app)["status"] == "running"
            && visitor(&mut site.owner, &app).try_request("GET", "/", None).is_ok()
    });
    let log = site.log(&app);
    assert!(log.contains("Ended while no server ran: signal 9."), "{log}");
    assert_eq!(names(&place.join("exits")).len(), 1, "one note, of the process that runs");
}

/// A process of nobody's, ended with the test.
struct Stranger(Child);

impl Stranger {
    fn start() -> Self {
        Self(Command::new("sleep").arg("600").spawn().expect("a process"))
    }

    fn start_ticks(&self) -> String {
        process::stat_field(self.0.id(), 22).expect("a start time")
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _gone = self.0.wait();
    }
}

#[test]
fn after_a_reboot_what_should_run_runs_and_strangers_with_old_pids_are_left_alone() {
    let mut site = Site::new();
    let apps: Vec<String> = ["one", "two", "three"].map(|name| site.app(name)).into();
    for app in &apps {
        deploy_live(&mut site.owner, app);
    }
    let (one, two, stopped) = (&apps[0], &apps[1], &apps[2]);
    site.owner.post(&format!("/api/apps/{stopped}/stop"), &json!({})).expect(202);
    until("it has stopped", LIMIT, || show(&mut site.owner, stopped)["status"] == "stopped");

    // The machine goes down, and comes up with other processes under the old numbers.
    site.server.kill9();
    let data: PathBuf = site.server.data();
    until("all processes are gone", LIMIT, || {
        let left = process::writing_into(&data);
        left.iter().for_each(|&pid| process::kill(pid));
        left.is_empty()
    });
    let (mut same_pid, mut same_all) = (Stranger::start(), Stranger::start());
    site.change_database(&format!(
        "UPDATE processes SET pid = {} WHERE app_id = '{one}';\
         UPDATE processes SET pid = {}, start_ticks = {} WHERE app_id = '{two}'",
        same_pid.0.id(),
        same_all.0.id(),
        same_all.start_ticks()
    ));
    site.start_again();
    for app in [one, two] {
        until("it answers again", LIMIT, || {
            show(&mut site.owner, app)["status"] == "running"
                && visitor(&mut site.owner, app).try_request("GET", "/", None).is_ok()
        });
        let log = site.log(app);
        assert!(log.contains("Ended while no server ran: unknown."), "{log}");
        site.owner.post(&format!("/api/apps/{app}/stop"), &json!({})).expect(202);
        until("it stops", LIMIT, || show(&mut site.owner, app)["status"] == "stopped");
    }
    assert_eq!(show(&mut site.owner, stopped)["status"], "stopped");
    for stranger in [&mut same_pid, &mut same_all] {
        assert!(stranger.0.try_wait().expect("a status").is_none(), "a stranger was ended");
    }
}

#[test]
fn apps_deploy_beside_one_another_and_build_in_turn() {
    let mut site = Site::new();
    let (slow, builder, other) = (site.app("slow"), site.app("builder"), site.app("other"));
    site.change(&slow, &json!({"startCommand": "echo asleep; exec sleep 600"}));
    let checked = deploy(&mut site.owner, &slow);
    site.reaches(&checked, "checking");
    deploy_live(&mut site.owner, &other);
    site.reaches(&checked, "checking");

    site.change(&builder, &json!({"buildCommand": HELD_BUILD}));
    site.change(&other, &json!({"buildCommand": "echo it builds"}));
    let first = deploy(&mut site.owner, &builder);
    let begun = site.place(&builder).join("cache/begun");
    until("it builds", LIMIT, || begun.exists());
    let second = deploy(&mut site.owner, &other);
    let log = format!("/api/deploys/{second}/log");
    until("the other waits for its turn", LIMIT, || {
        site.owner.get(&log).text().contains("Waiting until another app's build has ended")
    });
    assert!(!site.owner.get(&log).text().contains("it builds"));
    std::fs::write(site.place(&builder).join("cache/go"), "").unwrap();
    for id in [first, second] {
        assert_eq!(ended(&mut site.owner, &id)["status"], "live");
    }

    // An app is removed in the middle of its deploy, and nobody waits for that.
    site.owner.delete(&format!("/api/apps/{slow}")).expect(204);
    site.owner.get(&format!("/api/apps/{slow}")).expect(404);
    let (place, data) = (site.place(&slow), site.server.data());
    until("nothing of it is left", LIMIT, || {
        sandboxes(&place).is_empty()
            && !place.exists()
            && !names(&data.join("apps")).iter().any(|name| name.starts_with('.'))
            && !names(&data.join("logs/apps")).iter().any(|name| name.starts_with(&slow))
            && !names(&data.join("logs/deploys")).iter().any(|name| name.starts_with(&checked))
    });

    // Nor of one whose removal was cut short by a kill.
    site.server.kill9();
    site.change_database(&format!("DELETE FROM apps WHERE id = '{other}'"));
    site.start_again();
    let place = site.place(&other);
    until("what the database does not know is gone", LIMIT, || {
        sandboxes(&place).is_empty()
            && names(&place) == ["data"]
            && !names(&data.join("logs/apps")).iter().any(|name| name.starts_with(&other))
    });
}

#[test]
fn builds_are_first_come_first_served_and_what_needs_no_build_passes_them() {
    let mut site = Site::new();
    let apps: Vec<String> = (0..10).map(|n| site.app(&format!("app{n}"))).collect();
    let held = site.place(&apps[0]);
    site.change(&apps[0], &json!({"buildCommand": HELD_BUILD}));
    apps[1..].iter().for_each(|app| site.change(app, &json!({"buildCommand": "true"})));
    let mut deploys = vec![deploy(&mut site.owner, &apps[0])];
    until("it builds", LIMIT, || held.join("cache/begun").exists());
    deploys.extend(apps[1..].iter().map(|app| deploy(&mut site.owner, app)));
    for id in &deploys[1..] {
        let log = format!("/api/deploys/{id}/log");
        until("it waits for its turn", LIMIT, || {
            site.owner.get(&log).text().contains("Waiting until another app's build has ended")
        });
    }
    let quick = site.app("quick");
    deploy_live(&mut site.owner, &quick);
    std::fs::write(held.join("cache/go"), "").unwrap();
    let mut built = Vec::new();
    for id in &deploys {
        let now = ended(&mut site.owner, id);
        assert_eq!(now["status"], "live", "{now}");
        let steps = now["steps"].as_array().expect("steps");
        let building = steps.iter().find(|step| step["step"] == "building").expect("a build");
        built.push(building["finishedAt"].as_i64().expect("a time"));
    }
    assert!(built.is_sorted(), "{built:?}");
}

#[test]
fn two_apps_that_want_the_same_port_do_not_disturb_each_other() {
    // Where Landlock is, neither gets it.
    if !rustix::process::getuid().is_root() {
        return;
    }
    let mut site = Site::with(Setup::new().as_user().without_landlock().start());
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let fixed = free.local_addr().unwrap().port().to_string();
    drop(free);
    let (first, second) = (site.app("first"), site.app("second"));
    for app in [&first, &second] {
        site.set_env(app, "FIXED", &fixed);
    }
    deploy_live(&mut site.owner, &first);
    let before = show(&mut site.owner, &first)["url"].clone();
    let id = deploy(&mut site.owner, &second);
    let failed = ended(&mut site.owner, &id);
    let error = failed["error"].as_str().unwrap_or_default();
    assert_eq!(failed["status"], "failed");
    assert!(error.contains("only at the port that the variable PORT names"), "{error}");
    let after = show(&mut site.owner, &first);
    assert_eq!((&after["status"], &after["url"]), (&json!("running"), &before));
    assert_eq!(visitor(&mut site.owner, &first).get("/").expect(200).text(), WHOLE);
}

#[test]
fn an_app_that_is_stopped_leaves_no_release_before_it_running() {
    let mut site = Site::new();
    let app = site.app("fragile");
    let first = deploy(&mut site.owner, &app);
    assert_eq!(ended(&mut site.owner, &first)["status"], "live");
    let url = show(&mut site.owner, &app)["url"].as_str().expect("a url").to_owned();
    let mut held = RawConn::to(url.trim_start_matches("http://").parse().expect("an address"));
    held.send("GET /wait HTTP/1.0\r\n\r\n");
    assert!(held.is_open(), "the answer has begun");
    deploy_live(&mut site.owner, &app);
    let place = site.place(&app);
    assert!(sandboxes(&place).iter().any(|a| a.contains(&first)), "it was cut off");
    site.owner.post(&format!("/api/apps/{app}/stop"), &json!({})).expect(202);
    // Left alone it would have 30 s for its answer.
    let soon = Duration::from_secs(20);
    until("nothing of it runs", soon, || sandboxes(&place).is_empty());
}
