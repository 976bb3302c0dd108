//! What survives the death of the server and of the machine, and what does not: apps do, half-done deploys do not.

use crate::deploy::{PLAIN, create, deploy, deploy_live, ended, show, visitor};
use crate::harness::{GitServer, Http, RawConn, Server, Setup, process, until, until_some};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);

/// Waits until this file is there: in a build's cache, where a test can put it.
const HELD_BUILD: &str = "touch /cache/begun; until [ -e /cache/go ]; do sleep 0.02; done";

/// Ends as it is told to by its visitor. `FIXED` is a second port, of its own choice.
const FRAGILE: &str = "\
import http.server, os, signal, socket, time
if os.environ.get('STUBBORN'): signal.signal(signal.SIGTERM, lambda *_: open('/data/asked' + os.environ['PORT'], 'w'))
while os.path.exists('/data/hold'): time.sleep(0.02)
if os.environ.get('FIXED'):
    fixed = socket.create_server(('127.0.0.1', int(os.environ['FIXED'])))
class H(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == '/exit': os._exit(7)
        if self.path == '/kill': os.kill(os.getpid(), signal.SIGKILL)
        self.send_response(200); self.end_headers(); self.wfile.write(b'VERSION one')
        while self.path == '/wait' and not os.path.exists('/data/finish'): time.sleep(0.02)
        self.wfile.write(b' to its end')
http.server.ThreadingHTTPServer(('127.0.0.1', int(os.environ['PORT'])), H).serve_forever()
";

/// Its answer.
const WHOLE: &str = "VERSION one to its end";

fn files(main: &str) -> [(&'static str, &str); 2] {
    [PLAIN[0], ("main.py", main)]
}

/// A server, its owner, and what is needed to kill and start it again.
struct Site {
    git: GitServer,
    server: Server,
    owner: Http,
}

impl Site {
    fn new() -> Self {
        let git = GitServer::start();
        git.commit("fragile", &files(FRAGILE));
        let server = Setup::new().as_user().start();
        let owner = server.owner();
        Self { git, server, owner }
    }

    /// An app that is checked over HTTP.
    #[track_caller]
    fn app(&mut self, name: &str) -> String {
        let app = json!({"name": name, "gitRepo": self.git.url("fragile"), "healthPath": "/"});
        create(&mut self.owner, &app)
    }

    fn set_env(&mut self, app: &str, name: &str, value: &str) {
        let env = json!({"env": [{"name": name, "value": value, "secret": false}]});
        self.owner.put(&format!("/api/apps/{app}/env"), &env).expect(200);
    }

    fn change(&mut self, app: &str, change: &Value) {
        self.owner.patch(&format!("/api/apps/{app}"), change).expect(200);
    }

    fn place(&self, app: &str) -> PathBuf {
        self.server.data().join("apps").join(app)
    }

    fn start_again(&mut self) {
        self.server = self.server.setup().clone().start();
        self.owner = self.server.owner();
    }

    fn log(&mut self, app: &str) -> String {
        self.owner.get(&format!("/api/apps/{app}/log")).expect(200).text()
    }

    /// Waits until a deploy has reached a step.
    #[track_caller]
    fn reaches(&mut self, deploy: &str, step: &str) {
        until_some(&format!("the deploy is {step}"), LIMIT, || {
            let now = self.owner.get(&format!("/api/deploys/{deploy}")).expect(200).json();
            assert_ne!(now["status"], "failed", "{now}");
            (now["status"] == step).then_some(())
        });
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
                && names(&self.server.data().join("apps/.trash")).is_empty()
        });
    }

    /// Changes the database while no server has it.
    fn change_database(&self, sql: &str) {
        let file = self.server.data().join("better-paas.db");
        let connection = rusqlite::Connection::open(file).expect("the database");
        connection.execute_batch(sql).expect("a change");
    }
}

/// The arguments of the sandboxes that have something of this directory inside.
fn sandboxes(place: &Path) -> Vec<String> {
    let place = format!("--bind {}/", place.display());
    process::all().into_iter().map(process::arguments).filter(|a| a.contains(&place)).collect()
}

fn names(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|e| e.file_name().to_string_lossy().into_owned()).collect()
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
    let mut site = Site::new();
    let steady = site.app("steady");
    deploy_live(&mut site.owner, &steady);
    let mut witness = visitor(&mut site.owner, &steady);
    let app = site.app("moving");
    site.set_env(&app, "STUBBORN", "yes");
    let live = deploy_live(&mut site.owner, &app);
    killed_while_fetching(&mut site, &app, &live);
    let queued = killed_while_building(&mut site, &app, &live);
    assert_eq!(witness.get("/").expect(200).text(), WHOLE);
    killed_while_proving(&mut site, &app, &[&live, &queued]);
    let switched = killed_after_the_switch(&mut site, &app);
    killed_while_going_back(&mut site, &app, &[&live, &queued, &switched]);
    assert_eq!(witness.get("/").expect(200).text(), WHOLE);
    assert_eq!(site.log(&steady).matches("Starting release").count(), 1, "it never stopped");
}

/// Git waits for its host.
fn killed_while_fetching(site: &mut Site, app: &str, live: &str) {
    let place = site.place(app);
    site.git.hold();
    let fetching = deploy(&mut site.owner, app);
    site.reaches(&fetching, "fetching");
    until("Git has asked", LIMIT, || sandboxes(&place).iter().any(|a| a.contains("fetch")));
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
    let url = show(&mut site.owner, app)["url"].clone();
    site.change(app, &json!({"buildCommand": HELD_BUILD}));
    let building = deploy(&mut site.owner, app);
    site.reaches(&building, "building");
    until("it builds", LIMIT, || place.join("cache/begun").exists());
    let queued = deploy(&mut site.owner, app);
    site.server.kill9();
    until("the build dies with the server", LIMIT, || {
        sandboxes(&place).iter().all(|a| !a.contains("/cache/go"))
    });
    site.start_again();
    site.was_interrupted(&building, &["building"]);
    site.reaches(&queued, "building");
    site.nothing_is_left_but(app, &[live, &queued]);
    assert_eq!(show(&mut site.owner, app)["url"], url, "the old release still serves");
    std::fs::write(place.join("cache/go"), "").unwrap();
    assert_eq!(ended(&mut site.owner, &queued)["status"], "live");
    let text = site.owner.get(&format!("/api/deploys/{building}/log")).expect(200).text();
    assert!(text.contains("Commit "), "{text}");
    assert!(!text.contains("made anew") && !has_leftovers(&place.join("repo")), "{text}");
    queued
}

/// The moment its sandbox is there, and while it does not listen.
fn killed_while_proving(site: &mut Site, app: &str, kept: &[&str]) {
    let place = site.place(app);
    let starting = deploy(&mut site.owner, app);
    let runs = |a: &String| {
        let dies = a.contains("--die-with-parent") || a.contains("/repo");
        a.contains(&starting) && !dies
    };
    until("it is started", LIMIT, || sandboxes(&place).iter().any(runs));
    site.server.kill9();
    site.start_again();
    site.was_interrupted(&starting, &["starting", "checking"]);
    site.nothing_is_left_but(app, kept);

    site.git.commit("fragile", &files("import time; time.sleep(600)"));
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
    let (place, old) = (site.place(app), visitor(&mut site.owner, app).address());
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
    assert_eq!(visitor(&mut site.owner, app).get("/").expect(200).text(), "VERSION two to its end");
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
    assert_eq!(visitor(&mut site.owner, app).get("/").expect(200).text(), "VERSION two to its end");
    std::fs::remove_file(&hold).unwrap();
    let gone = go_back(site);
    assert_eq!(ended(&mut site.owner, &gone)["status"], "live");
    assert_eq!(visitor(&mut site.owner, app).get("/").expect(200).text(), WHOLE);
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
fn a_crash_is_told_as_it_was_and_the_pauses_grow_also_across_servers() {
    let mut site = Site::new();
    let app = site.app("fragile");
    deploy_live(&mut site.owner, &app);
    let ends = |site: &mut Site, how: &str, detail: &str, line: &str| {
        let _cut = visitor(&mut site.owner, &app).try_request("GET", how, None);
        until(&format!("the status says {detail}"), LIMIT, || {
            let now = show(&mut site.owner, &app);
            now["status"] == "crashed" && now["statusDetail"] == detail
        });
        assert!(show(&mut site.owner, &app)["url"].is_null());
        let log = site.log(&app);
        assert!(log.contains(line), "{log}");
        until("it runs again", LIMIT, || {
            show(&mut site.owner, &app)["status"] == "running"
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
            && names(&data.join("apps/.trash")).is_empty()
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
fn two_apps_that_want_the_same_port_do_not_disturb_each_other() {
    let mut site = Site::new();
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
