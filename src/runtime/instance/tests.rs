//! Real sandboxes: how they end, and that nothing of them stays.

use super::*;
use crate::data_dir::DataDir;
use crate::journal::{HALF_APP_LOG, Journal, Redactor};
use crate::sandbox::bwrap::Purpose;
use crate::sandbox::host::Host;
use std::fs;
use std::os::unix::fs::PermissionsExt;

struct Fixture {
    host: Host,
    dir: tempfile::TempDir,
    journal: Journal,
}

fn app() -> AppId {
    AppId::parse("aaaaaaaaaa").unwrap()
}

impl Fixture {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for name in ["sandbox", "apps"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        let release = dir.path().join("apps/aaaaaaaaaa/releases/bbbbbbbbbb");
        fs::create_dir_all(&release).unwrap();
        fs::set_permissions(release, fs::Permissions::from_mode(0o777)).unwrap();
        let host = Host::here(&dir.path().join("sandbox"));
        let journal = Journal::open(&DataDir::open(&dir.path().join("data")).unwrap()).unwrap();
        Self { host, dir, journal }
    }

    fn apps(&self) -> std::path::PathBuf {
        self.dir.path().canonicalize().unwrap().join("apps")
    }

    fn exit_file(&self) -> PathBuf {
        self.dir.path().join("exit")
    }

    fn adopt(&self, instance: &Instance) -> Option<Instance> {
        let process = (instance.pid(), instance.start_ticks());
        Instance::adopt(process, &app(), self.exit_file())
    }

    fn start(&self, command: &str) -> Instance {
        let mut sandbox = Sandbox::new(&self.host, Purpose::Run, 5)
            .bind(&self.apps().join("aaaaaaaaaa/releases/bbbbbbbbbb"), "/app")
            .env("PATH", "/usr/bin:/bin");
        sandbox.log = Some(HALF_APP_LOG);
        sandbox.exit_file = Some(self.exit_file());
        let log = self.journal.app_log_files(&app()).unwrap();
        let mut instance = Instance::start(&sandbox, command, &log).unwrap();
        instance.keep();
        instance
    }

    /// Lets what is [`held`] go on, once.
    fn let_go(&self) {
        fs::write(self.apps().join("aaaaaaaaaa/releases/bbbbbbbbbb/go"), "").unwrap();
    }

    /// Waits until the app has written this.
    fn says(&self, text: &str) {
        let until = Instant::now() + Duration::from_secs(10);
        loop {
            let written = self.journal.app_tail(&app(), 5000, &Redactor::default()).unwrap();
            if written.iter().any(|line| line.contains(text)) {
                return;
            }
            assert!(Instant::now() < until, "never said {text}: {written:?}");
            std::thread::yield_now();
        }
    }
}

/// A command that waits for the test.
fn held(command: &str) -> String {
    format!("until [ -e /app/go ]; do sleep 0.01; done; rm /app/go; {command}")
}

fn end_of(instance: &mut Instance) -> Exit {
    assert!(instance.outer.wait(Duration::from_secs(10)).is_some(), "it did not end");
    instance.try_wait().unwrap()
}

/// Fails the test when one of the processes still runs after 10 s.
fn all_gone(processes: &[table::Entry]) {
    let until = Instant::now() + Duration::from_secs(10);
    let alive = |e: &table::Entry| Running::adopt(e.pid, e.start_ticks).is_some();
    while processes.iter().any(alive) {
        assert!(Instant::now() < until, "something survived");
        std::thread::yield_now();
    }
}

#[test]
fn the_exit_code_or_the_signal_is_known() {
    let place = Fixture::new();
    assert_eq!(end_of(&mut place.start("exit 3")), Exit::Code(3));
    assert_eq!(end_of(&mut place.start("kill -SEGV $$")), Exit::Signal(11));
    assert_eq!(end_of(&mut place.start("no-such-program")), Exit::Code(127));
}

#[test]
fn asked_to_end_it_ends_with_all_its_processes() {
    let place = Fixture::new();
    let mut instance = place.start("sleep 60 & sleep 61 & echo up; wait");
    place.says("up");
    let processes = instance.processes();
    assert!(processes.len() >= 3, "{processes:?}");
    instance.terminate();
    assert_eq!(end_of(&mut instance), Exit::Signal(15));
    all_gone(&processes);
    assert!(instance.end() && instance.is_gone());
}

#[test]
fn asked_to_end_it_has_time_to_finish_its_work_below_a_shell() {
    let place = Fixture::new();
    // The shell that runs the command, one that a script of the owner is, and the app.
    let app = "trap 'sleep 0.3; echo finished; exit 0' TERM; echo up; while :; do sleep 0.01; done";
    let mut instance = place.start(&format!("/bin/sh -c \"{app}\" && echo not this"));
    place.says("up");
    instance.terminate();
    assert_eq!(end_of(&mut instance), Exit::Signal(15));
    place.says("finished");
}

#[test]
fn one_that_does_not_want_to_end_is_killed_with_everything() {
    let place = Fixture::new();
    let mut instance = place.start("trap '' TERM; (trap '' TERM; setsid sleep 60) & echo up; wait");
    place.says("up");
    let processes = instance.processes();
    instance.terminate();
    assert!(instance.outer.wait(Duration::from_millis(300)).is_none());
    assert!(instance.end());
    assert_eq!(instance.try_wait(), Some(Exit::Signal(9)));
    all_gone(&processes);
}

#[test]
fn what_an_app_leaves_behind_ends_with_it() {
    let place = Fixture::new();
    let mut instance = place.start(&format!("setsid sleep 60 & echo up; {}", held("exit 4")));
    place.says("up");
    let processes = instance.processes();
    assert!(!processes.is_empty());
    place.let_go();
    assert_eq!(end_of(&mut instance), Exit::Code(4));
    all_gone(&processes);
}

#[test]
fn an_adopted_app_is_held_and_ended_like_a_child() {
    let place = Fixture::new();
    let mut instance = place.start("echo up; exec sleep 60");
    place.says("up");
    let mut adopted = place.adopt(&instance).unwrap();
    assert_eq!(adopted.processes().len(), instance.processes().len());
    adopted.terminate();
    assert_eq!(end_of(&mut adopted), Exit::Signal(15), "bubblewrap has noted it");
    assert_eq!(end_of(&mut instance), Exit::Signal(15));
    assert!(!place.exit_file().exists());
}

#[test]
fn only_a_sandbox_of_the_same_app_is_adopted() {
    let place = Fixture::new();
    let mut instance = place.start("echo up; exec sleep 60");
    place.says("up");
    let (pid, ticks) = (instance.pid(), instance.start_ticks());
    let adopt = |pid, ticks, app| {
        let app = AppId::parse(app).unwrap();
        Instance::adopt((pid, ticks), &app, place.exit_file()).is_some()
    };
    assert!(adopt(pid, ticks, "aaaaaaaaaa"));
    assert!(!adopt(pid, ticks + 1, "aaaaaaaaaa"), "the pid was used again");
    assert!(!adopt(pid, ticks, "cccccccccc"), "another app's");
    let me = table::entry(std::process::id()).unwrap();
    assert!(!adopt(me.pid, me.start_ticks, "aaaaaaaaaa"), "not a sandbox");
    assert!(instance.end());
}

#[test]
fn how_an_app_ended_is_noted_for_a_server_that_comes_later_and_never_guessed() {
    let place = Fixture::new();
    for (command, end) in [("exit 3", Exit::Code(3)), ("kill -SEGV $$", Exit::Signal(11))] {
        // Not before the start is over, which would read the note and remove it.
        let mut instance = place.start(&held(command));
        place.let_go();
        assert!(instance.outer.wait(Duration::from_secs(10)).is_some());
        assert_eq!(noted_exit(&place.exit_file()), end);
        assert_eq!(end_of(&mut instance), end);
    }
    // A bubblewrap that is killed itself leaves no note.
    let instance = place.start("echo up; exec sleep 60");
    place.says("up");
    let mut adopted = place.adopt(&instance).unwrap();
    instance.outer.kill();
    assert_eq!(end_of(&mut adopted), Exit::Unknown);
    assert!(adopted.end());
    for text in ["", "{", "{\"exit-code\": \"0\"}", "{\"child-pid\": 5}\n", "[]"] {
        fs::write(place.exit_file(), text).unwrap();
        assert_eq!(noted_exit(&place.exit_file()), Exit::Unknown, "{text}");
    }
}

#[test]
fn a_sweep_finds_what_a_killed_server_left_also_without_its_outer_half() {
    let place = Fixture::new();
    let mut kept = place.start("echo one; exec sleep 60");
    place.says("one");
    let mut stray = place.start("echo two; exec sleep 60");
    place.says("two");
    let mut half = place.start("echo three; exec sleep 60");
    place.says("three");
    let processes = [stray.processes(), half.processes()].concat();
    half.outer.kill();
    assert!(half.outer.wait(Duration::from_secs(5)).is_some());
    let known = HashSet::from([kept.pid()]);
    assert!(sweep(&place.apps(), &known) >= 2);
    all_gone(&processes);
    assert!(stray.outer.wait(Duration::from_secs(5)).is_some());
    assert_eq!(kept.try_wait(), None);
    assert!(kept.end());
    assert_eq!(sweep(&place.apps(), &HashSet::new()), 0);
}
