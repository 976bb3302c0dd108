//! Processes without a port: as many as their owner wants, never two generations at once, and none lost (P35).

use crate::harness::apps::{
    PLAIN, create, deploy, deploy_live, ended, fails, restart, roll_back, show,
};
use crate::harness::routed::start;
use crate::harness::site::{LIMIT, Site};
use crate::harness::{Http, Setup, process, random, until};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;

const WORKER: &str = include_str!("fixtures/worker.py");

/// What visitors get of an app.
#[derive(Clone, Copy, PartialEq)]
enum Visited {
    Process,
    Files,
    Nothing,
}
use Visited::{Files, Nothing, Process};

/// A server, and an app with the processes that its Procfile names.
struct Shop {
    site: Site,
    app: String,
    /// A word in the arguments of its workers, and of no other process.
    mark: String,
}

impl Shop {
    fn new(visited: Visited, names: &[&str], more: Value) -> Self {
        Self::on(Site::new(), visited, names, more)
    }

    fn on(site: Site, visited: Visited, names: &[&str], more: Value) -> Self {
        let mark = format!("mark{:016x}", u64::from_be_bytes(random()));
        let mut shop = Self { site, app: String::new(), mark };
        shop.commit(visited, names, "one");
        let mut body = json!({"name": "shop", "gitRepo": shop.site.git.url("shop")});
        let fields = body.as_object_mut().expect("an object");
        fields.extend(more.as_object().cloned().into_iter().flatten());
        shop.app = create(&mut shop.site.owner, &body);
        deploy_live(&mut shop.site.owner, &shop.app);
        shop
    }

    fn commit(&self, visited: Visited, names: &[&str], version: &str) {
        let mark = &self.mark;
        let line = |name: &&str| format!("{name}: exec python3 -u worker.py {mark} {name}\n");
        let mut procfile: String = names.iter().map(line).collect();
        if visited == Process {
            procfile.push_str(PLAIN[0].1);
        }
        let broken = "import sys; sys.exit(4)";
        let main = if version == "broken web" { broken } else { PLAIN[1].1 };
        let mut files =
            vec![("Procfile", procfile.as_str()), ("worker.py", WORKER), ("version", version)];
        match visited {
            Process => files.push(("main.py", main)),
            Files => files.push(("index.html", version)),
            Nothing => {}
        }
        self.site.git.commit("shop", &files);
    }

    /// Its workers of a name; all of them, if the name is empty.
    fn pids(&self, name: &str) -> BTreeSet<u32> {
        let words = format!(" {} {name}", self.mark);
        let is_one = |pid: &u32| {
            let arguments = process::arguments(*pid);
            arguments.starts_with("python3 ") && arguments.contains(&words)
        };
        process::all().into_iter().filter(is_one).collect()
    }

    #[track_caller]
    fn until_there_are(&self, name: &str, count: usize) -> BTreeSet<u32> {
        until(&format!("{count} of `{name}`"), LIMIT, || self.pids(name).len() == count);
        self.pids(name)
    }

    /// What the workers wrote down, in the order in which it happened.
    fn events(&self) -> Vec<String> {
        let file = self.site.place(&self.app).join("data/events");
        fs::read_to_string(file).unwrap_or_default().lines().map(str::to_owned).collect()
    }

    /// Whether all of an earlier version ended before the first of a later one began.
    #[track_caller]
    fn follows(&self, before: &str, after: &str, count: usize) {
        let of = |what: &str, version: &str| {
            let is = |e: &String| e.starts_with(what) && e.ends_with(&format!(" {version}"));
            let events = self.events();
            events.iter().enumerate().filter(|(_, e)| is(e)).map(|(at, _)| at).collect::<Vec<_>>()
        };
        until("all have begun", LIMIT, || of("start", after).len() >= count);
        let events = self.events();
        let (begun, over) = (of("start", after), of("end", before));
        assert_eq!((begun.len(), over.len()), (count, count), "{events:?}");
        assert!(over.last() < begun.first(), "{events:?}");
    }

    fn forget_events(&self) {
        fs::write(self.site.place(&self.app).join("data/events"), "").expect("written");
    }

    fn crash(&self, name: &str) {
        fs::write(self.site.place(&self.app).join(format!("data/crash-{name}")), "").expect("made");
    }

    fn path(&self) -> String {
        format!("/api/apps/{}", self.app)
    }

    #[track_caller]
    fn scale(&mut self, name: &str, scale: u32) -> Value {
        let path = format!("{}/processes/{name}", self.path());
        self.site.owner.patch(&path, &json!({"scale": scale})).expect(200).json()
    }

    /// What the API says of a process.
    #[track_caller]
    fn process(&mut self, name: &str) -> Value {
        let path = format!("{}/processes", self.path());
        let all = self.site.owner.get(&path).expect(200).json()["processes"].clone();
        let one = all.as_array().expect("a list").iter().find(|one| one["name"] == name);
        one.unwrap_or_else(|| panic!("no {name} in {all}")).clone()
    }

    fn status(&mut self) -> String {
        show(&mut self.site.owner, &self.app)["status"].as_str().expect("a word").to_owned()
    }

    fn post(&mut self, what: &str) {
        let path = format!("{}/{what}", self.path());
        self.site.owner.post(&path, &json!({})).expect(202);
    }

    /// Whether all processes of a name run.
    fn all_run(&mut self, name: &str) -> bool {
        let shown = self.process(name);
        let mut all = shown["instances"].as_array().expect("a list").iter();
        all.all(|one| one["status"] == "running")
    }

    fn owner(&mut self) -> (&mut Http, &str) {
        (&mut self.site.owner, &self.app)
    }

    fn log(&mut self) -> String {
        self.site.log(&self.app)
    }
}

#[test]
fn workers_run_beside_the_app_as_many_as_wanted_and_their_lines_have_their_names() {
    let mut shop = Shop::new(Process, &["worker", "clock"], json!({}));
    let last = "not a line of the platform's\n";
    until("both have written", LIMIT, || shop.log().matches(last).count() == 2);
    let log = shop.log();
    let user = |name: &str| {
        let begin = format!("{name}.1 | {name} one at work as ");
        let line = log.lines().find_map(|line| line.strip_prefix(&begin));
        line.unwrap_or_else(|| panic!("{begin}: {log}")).to_owned()
    };
    assert_eq!(user("worker"), user("clock"));
    assert!(user("worker").ends_with(", PORT None"), "{log}");
    for line in [
        "worker.1 | [better-paas] not a line of the platform's",
        "plain app starting",
        " worker.1 | Starting.",
    ] {
        assert!(log.lines().any(|l| l == line || l.ends_with(line)), "{line}: {log}");
    }

    let shown = shop.process("worker");
    assert_eq!((&shown["scale"], &shown["instances"][0]["status"]), (&json!(1), &json!("running")));
    assert!(shown["command"].as_str().is_some_and(|c| c.contains("worker.py")), "{shown}");
    let web = shop.process("web");
    assert_eq!(web["instances"][0]["status"], "running");

    shop.site.owner.delete(&shop.path()).expect(204);
    shop.until_there_are("", 0);
}

#[test]
fn an_owner_scales_a_process_at_once_and_touches_no_other() {
    let mut shop = Shop::new(Process, &["worker", "clock"], json!({}));
    let (worker, clock) = (shop.until_there_are("worker", 1), shop.until_there_are("clock", 1));
    let web = shop.process("web");
    until("both have written", LIMIT, || shop.events().len() == 2);
    let restarts = |shop: &mut Shop| shop.log().matches("Starting release").count();
    let before = restarts(&mut shop);
    shop.scale("worker", 3);
    let three = shop.until_there_are("worker", 3);
    assert!(three.is_superset(&worker));
    until("they are shown", LIMIT, || {
        shop.process("worker")["scale"] == 3 && shop.all_run("worker")
    });
    until("it has written", LIMIT, || shop.log().contains("worker.3 | worker one at work"));
    shop.scale("worker", 1);
    assert_eq!(shop.until_there_are("worker", 1), worker, "those with the highest numbers go");
    until("it is told", LIMIT, || shop.log().matches("Stopped.").count() == 2);
    assert!(!shop.log().contains("worker.1 | Stopped."), "{}", shop.log());
    assert_eq!(shop.scale("worker", 0)["processes"][0]["instances"], json!([web["instances"][0]]));
    shop.until_there_are("worker", 0);
    let path = shop.path();
    shop.site.owner.patch(&path, &json!({"scale": {"worker": 2}})).expect(200);
    shop.until_there_are("worker", 2);
    assert_eq!(shop.pids("clock"), clock);
    assert_eq!(restarts(&mut shop), before, "the web process stays");

    let owner = &mut shop.site.owner;
    for (name, scale, status, why) in [
        ("worker", json!(1000), 400, "scale must be a whole number from 0 to 10"),
        ("worker", json!(-1), 400, "scale must be a whole number from 0 to 10"),
        ("worker", json!("2"), 400, "must be a whole number"),
        ("web", json!(2), 404, "`web` runs once"),
        ("release", json!(2), 404, "no process of this name"),
        ("nothing", json!(2), 404, "no process of this name"),
    ] {
        let body = json!({"scale": scale});
        let answer = owner.patch(&format!("{path}/processes/{name}"), &body).expect(status);
        assert!(answer.text().contains(why), "{}", answer.text());
    }
    for scale in [json!({"worker": 1000}), json!({"web": 2}), json!({"A b": 1}), json!(3)] {
        owner.patch(&path, &json!({"scale": scale})).expect(400);
    }
    assert_eq!(shop.pids("worker").len(), 2);

    // What an app has set stays with it.
    let (owner, app) = shop.owner();
    assert_eq!(restart(owner, app)["status"], "live");
    shop.until_there_are("worker", 2);
    shop.site.owner.delete(&path).expect(204);
    shop.until_there_are("", 0);
}

#[test]
fn workers_of_a_release_have_ended_before_those_of_the_next_start_and_a_failed_deploy_leaves_them()
{
    let mut shop = Shop::new(Process, &["worker", "clock"], json!({"scale": {"worker": 2}}));
    shop.until_there_are("", 3);
    until("they have begun", LIMIT, || shop.events().len() == 3);
    // Under another name it may do the same work.
    shop.commit(Process, &["worker", "jobs"], "two");
    let (owner, app) = shop.owner();
    let two = deploy_live(owner, app);
    shop.follows("one", "two", 3);
    let pids = shop.until_there_are("", 3);
    assert_eq!(shop.pids("clock").len(), 0);

    shop.commit(Process, &["worker"], "broken web");
    let (owner, app) = shop.owner();
    let (error, _) = fails(owner, app);
    assert!(error.contains("exit code 4"), "{error}");
    assert_eq!(shop.pids(""), pids, "the old ones were left alone");

    shop.commit(Process, &["worker", "jobs"], "three");
    let (owner, app) = shop.owner();
    deploy_live(owner, app);
    shop.follows("two", "three", 3);
    shop.forget_events();
    let (owner, app) = shop.owner();
    assert_eq!(restart(owner, app)["status"], "live");
    shop.follows("three", "three", 3);
    shop.forget_events();
    let (owner, app) = shop.owner();
    roll_back(owner, app, &two);
    shop.follows("three", "two", 3);

    shop.post("stop");
    shop.until_there_are("", 0);
    shop.post("start");
    shop.until_there_are("", 3);
}

#[test]
fn an_app_of_workers_alone_is_live_when_they_stay_up_and_its_status_is_theirs() {
    let mut shop = Shop::new(Nothing, &["worker", "clock"], json!({}));
    assert_eq!(shop.status(), "running");
    let pids = shop.until_there_are("", 2);
    assert_eq!(shop.log().matches("worker.1 | Starting.").count(), 1, "proved is taken over");
    assert!(show(&mut shop.site.owner, &shop.app)["url"].is_null());
    let path = format!("{}/processes/web", shop.path());
    shop.site.owner.patch(&path, &json!({"scale": 1})).expect(404);

    // The next one has to end at once for the deploy to fail; those before come back.
    shop.commit(Nothing, &["worker"], "broken");
    let id = deploy(&mut shop.site.owner, &shop.app);
    let end = ended(&mut shop.site.owner, &id);
    let error = end["error"].as_str().expect("a sentence");
    let log = shop.site.owner.get(&format!("/api/deploys/{id}/log")).expect(200).text();
    assert!(error.starts_with("checking failed: worker.1 ended with exit code 5"), "{error}");
    assert!(error.contains("last lines:\nworker broken at work"), "{error}");
    assert!(log.contains("Starting worker.1: exec python3"), "{log}");
    let back = shop.until_there_are("", 2);
    assert!(back.is_disjoint(&pids));
    until("they are shown", LIMIT, || shop.status() == "running");

    shop.forget_events();
    shop.commit(Nothing, &["worker", "clock"], "two");
    let (owner, app) = shop.owner();
    deploy_live(owner, app);
    shop.follows("one", "two", 2);

    // One that ends again and again is the app's status.
    for (status, line) in [
        ("crashed", "worker.1 | Ended with exit code 3; starting it again in 1 s."),
        ("crash-looping", "worker.1 | Ended with exit code 3; starting it again in 2 s."),
    ] {
        shop.until_there_are("", 2);
        shop.crash("worker");
        until(&format!("it is {status}"), LIMIT, || shop.status() == status);
        assert!(shop.log().contains(line), "{}", shop.log());
    }
    let (clock, now) = (shop.process("clock"), shop.process("worker"));
    assert_eq!(clock["instances"][0]["restarts"], 0);
    assert_eq!(now["instances"][0]["lastExit"], "exit code 3");
    shop.until_there_are("", 2);
    assert_eq!(shop.status(), "crash-looping", "for a minute");

    // Stopped in the pause before the next start, it stays so.
    shop.crash("worker");
    until("it waits", LIMIT, || shop.process("worker")["instances"][0]["nextStartAt"].is_number());
    shop.post("stop");
    until("it is stopped", LIMIT, || shop.status() == "stopped");
    assert_eq!(shop.pids("").len(), 0);
    assert_eq!(shop.process("worker")["instances"][0]["status"], "stopped");
    shop.post("start");
    shop.until_there_are("", 2);
    until("it runs", LIMIT, || shop.status() == "running");
    let id = deploy(&mut shop.site.owner, &shop.app);
    shop.post("stop");
    assert_eq!(ended(&mut shop.site.owner, &id)["status"], "failed");
    shop.until_there_are("", 0);
}

#[test]
fn a_server_that_is_killed_leaves_workers_to_the_next_none_of_them_lost_or_there_twice() {
    let mut shop = Shop::new(Process, &["worker", "clock"], json!({"scale": {"worker": 2}}));
    let pids = shop.until_there_are("", 3);
    // Before that the server may not have noted all of them.
    until("they are shown", LIMIT, || shop.all_run("worker") && shop.all_run("clock"));
    until("they have begun", LIMIT, || shop.events().len() == 3);
    shop.site.server.kill9();
    assert_eq!(shop.pids(""), pids);
    shop.site.start_again();
    until("they are shown", LIMIT, || shop.all_run("worker"));
    assert_eq!(shop.pids(""), pids);

    // One that ends while no server runs is started again; of those that run nobody is touched.
    shop.site.server.kill9();
    let clock = shop.pids("clock");
    clock.iter().for_each(|&pid| process::kill(pid));
    shop.until_there_are("clock", 0);
    shop.site.start_again();
    shop.until_there_are("clock", 1);
    assert!(shop.log().contains("clock.1 | Ended while no server ran: signal 9."));
    assert_eq!(&shop.pids("worker") | &clock, pids);

    // Killed while old ones end for new ones.
    shop.site.set_env(&shop.app.clone(), "SLOW", "4");
    let (owner, app) = shop.owner();
    assert_eq!(restart(owner, app)["status"], "live");
    until("they have the variable", LIMIT, || {
        shop.events().iter().filter(|event| event.starts_with("start")).count() == 7
    });
    shop.forget_events();
    shop.commit(Process, &["worker", "clock"], "two");
    let (owner, app) = shop.owner();
    deploy_live(owner, app);
    shop.site.server.kill9();
    assert_eq!(shop.pids("").len(), 3, "the old ones take their time");
    shop.site.start_again();
    shop.follows("one", "two", 3);
    shop.until_there_are("", 3);

    // And while they end for good.
    shop.scale("worker", 0);
    until("they were asked", LIMIT, || shop.process("worker")["instances"] == json!([]));
    shop.site.server.kill9();
    shop.site.start_again();
    shop.until_there_are("worker", 0);
    shop.until_there_are("clock", 1);
    let (status, _) = shop.site.server.terminate();
    assert!(status.success(), "{status}");
    shop.until_there_are("clock", 1);
    shop.site.start_again();
    shop.post("stop");
    shop.until_there_are("", 0);
}

#[test]
fn a_worker_ends_with_all_that_it_has_forked() {
    let mut shop = Shop::new(Process, &["worker"], json!({}));
    shop.commit(Process, &["worker"], "forks");
    let (owner, app) = shop.owner();
    deploy_live(owner, app);
    let both = shop.until_there_are("", 2);
    // The daemon ends with the one that left it, and the next has one of its own.
    shop.crash("worker");
    until("the next ones are there", LIMIT, || {
        shop.pids("").len() == 2 && shop.pids("").is_disjoint(&both)
    });
    shop.scale("worker", 0);
    shop.until_there_are("", 0);
}

#[test]
fn workers_of_an_app_that_cannot_run_twice_end_before_the_next_and_come_back_for_a_failed_one() {
    let mut shop = Shop::new(Process, &["worker"], json!({"oneAtATime": true}));
    shop.until_there_are("", 1);
    until("it has begun", LIMIT, || shop.events().len() == 1);
    shop.forget_events();
    let (owner, app) = shop.owner();
    deploy_live(owner, app);
    shop.follows("one", "one", 1);
    shop.forget_events();
    shop.commit(Process, &["worker"], "broken web");
    let (owner, app) = shop.owner();
    fails(owner, app);
    // By the time that the next was started it had ended, and the same is back.
    shop.follows("one", "one", 1);
    shop.until_there_are("", 1);
}

#[test]
fn a_site_may_have_workers() {
    let site = Site::with(start(Setup::routed().as_user()));
    let mut shop = Shop::on(site, Files, &["worker"], json!({}));
    shop.until_there_are("", 1);
    let page = |shop: &Shop| shop.site.server.visitor("shop.localhost").get("/").expect(200).text();
    assert_eq!(page(&shop), "one");
    shop.commit(Files, &["worker"], "two");
    let (owner, app) = shop.owner();
    deploy_live(owner, app);
    shop.follows("one", "two", 1);
    assert_eq!((page(&shop).as_str(), shop.status().as_str()), ("two", "running"));

    // When it becomes an app of workers alone, visitors are told that it does not run.
    shop.commit(Nothing, &["worker"], "three");
    let (owner, app) = shop.owner();
    deploy_live(owner, app);
    shop.follows("two", "three", 1);
    shop.site.server.visitor("shop.localhost").get("/").expect(503);
}
