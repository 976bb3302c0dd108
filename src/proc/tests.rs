//! What a started process may and may not do to us.

use super::*;
use std::io::{Read, Seek};

/// What must not wait for a minute did not; no measure of speed.
const LONG_BEFORE: Duration = Duration::from_secs(30);

impl Exec {
    /// What everybody on the machine would see of it.
    pub(crate) fn args_for_test(&self) -> &[OsString] {
        &self.args
    }
}

fn sh(script: &str) -> Exec {
    Exec::new("sh").arg("-c").arg(script)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Waits until a condition holds; fails the test when it does not within 10 s.
fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < until, "never happened: {what}");
        std::thread::yield_now();
    }
}

#[test]
fn both_streams_and_the_exit_code_come_back() {
    let output = sh("cat; echo err >&2; exit 3").stdin_bytes(b"in".to_vec()).run().unwrap();
    assert_eq!(output.exit, Exit::Code(3));
    assert_eq!((text(&output.stdout), text(&output.stderr)), ("in".into(), "err\n".into()));
    assert_eq!(sh("kill -9 $$").run().unwrap().exit, Exit::Signal(9));
}

#[test]
fn the_environment_holds_what_the_caller_gave_and_nothing_else() {
    let output = Exec::new("env").env("A", "b c").run().unwrap();
    let text = text(&output.stdout);
    let mut names: Vec<&str> = text.lines().filter_map(|l| Some(l.split_once('=')?.0)).collect();
    names.sort_unstable();
    assert_eq!(names, ["A", "LANG", "PATH"]);
    assert!(text.contains("A=b c\n"));
}

#[test]
fn a_missing_program_is_named() {
    let error = Exec::new("no-such-program-here").run().unwrap_err();
    assert_eq!(error.to_string(), "the program no-such-program-here is not installed");
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
    assert!(Exec::new("/no/such/program").run().is_err());
}

#[test]
fn at_the_deadline_the_whole_group_is_killed() {
    let begun = Instant::now();
    let exec = sh("sleep 60 & echo $!; exec sleep 60").deadline(Duration::from_millis(300));
    let output = exec.run().unwrap();
    assert_eq!(output.exit, Exit::TimedOut);
    assert!(begun.elapsed() < LONG_BEFORE);
    let background: u32 = text(&output.stdout).trim().parse().unwrap();
    eventually("the background process is gone", || {
        table::entry(background).is_none_or(|e| e.has_ended())
    });
}

#[test]
fn a_process_left_in_the_background_does_not_outlive_the_leader() {
    let begun = Instant::now();
    let output = sh("sleep 60 & echo $!").run().unwrap();
    assert_eq!(output.exit, Exit::Code(0));
    assert!(begun.elapsed() < LONG_BEFORE, "its pipe must not hold us up");
    let background: u32 = text(&output.stdout).trim().parse().unwrap();
    eventually("the background process is gone", || {
        table::entry(background).is_none_or(|e| e.has_ended())
    });
}

#[test]
fn a_process_that_left_its_group_does_not_hold_us_up() {
    let begun = Instant::now();
    let output = sh("setsid sleep 60 & echo $!").run().unwrap();
    assert_eq!(output.exit, Exit::Code(0));
    assert!(begun.elapsed() < LONG_BEFORE);
    assert!(sh(&format!("kill {}", text(&output.stdout))).run().unwrap().exit.is_success());
}

#[test]
fn output_beyond_the_cap_ends_the_process() {
    let output = sh("yes").run().unwrap();
    assert_eq!((output.exit, output.stdout.len()), (Exit::OutputCapped, OUTPUT_CAP));
    let mut bytes = 0;
    let mut take = |piece: &[u8]| {
        bytes += piece.len();
        bytes < 100_000
    };
    let output = sh("yes").pieces(&mut take, &Cancel::new().unwrap()).unwrap();
    assert_eq!((output.exit, bytes >= 100_000), (Exit::OutputCapped, true));
}

#[test]
fn large_input_and_output_do_not_block_each_other() {
    let big = vec![b'x'; OUTPUT_CAP];
    let output = Exec::new("cat").stdin_bytes(big.clone()).run().unwrap();
    assert_eq!(output.exit, Exit::Code(0));
    assert!(output.stdout == big);
    let output = Exec::new("true").stdin_bytes(big).run().unwrap();
    assert_eq!(output.exit, Exit::Code(0), "a program that ignores its input is no error");
}

#[test]
fn both_streams_can_be_one_in_the_order_of_writing() {
    let mut all = Vec::new();
    let mut take = |piece: &[u8]| {
        all.extend_from_slice(piece);
        true
    };
    let script = sh(r"printf 'a\nla'; printf 'st\377' >&2; echo end").joined();
    let output = script.pieces(&mut take, &Cancel::new().unwrap()).unwrap();
    assert_eq!((output.exit, output.stderr), (Exit::Code(0), Vec::new()));
    assert_eq!(all, b"a\nlast\xffend\n");
}

#[test]
fn pulling_the_cancel_ends_the_process_at_once() {
    let cancel = Cancel::new().unwrap();
    let mut started = false;
    let begun = Instant::now();
    let pull = cancel.clone();
    let mut take = |_: &[u8]| {
        started = true;
        pull.cancel();
        true
    };
    let output = sh("echo started; sleep 60").pieces(&mut take, &cancel).unwrap();
    assert_eq!((output.exit, started), (Exit::Cancelled, true));
    assert!(begun.elapsed() < LONG_BEFORE);
    assert_eq!(sh("sleep 60").run_until(&cancel).unwrap().exit, Exit::Cancelled);
}

#[test]
fn a_detached_process_has_its_own_session_and_writes_straight_to_its_file() {
    let mut log = tempfile::tempfile().unwrap();
    let script = "cat; ps -o sid= -p $$ | tr -d ' '; echo $$; exit 7";
    let mut running =
        sh(script).stdin_bytes(vec![b'y'; 100_000]).spawn_detached(&log, &log).unwrap();
    let entry = table::entry(running.pid()).unwrap();
    assert_eq!(entry.start_ticks, running.start_ticks());
    assert_eq!(running.wait(Duration::from_secs(10)), Some(Exit::Code(7)));
    let mut written = String::new();
    log.rewind().unwrap();
    log.read_to_string(&mut written).unwrap();
    let pid = running.pid();
    assert_eq!(written, format!("{}{pid}\n{pid}\n", "y".repeat(100_000)));
}

#[test]
fn a_process_is_adopted_by_pid_and_start_time_only() {
    let log = tempfile::tempfile().unwrap();
    let mut running = sh("exec sleep 60").spawn_detached(&log, &log).unwrap();
    let (pid, ticks) = (running.pid(), running.start_ticks());
    assert!(Running::adopt(pid, ticks + 1).is_none(), "another process with the same pid");
    let mut adopted = Running::adopt(pid, ticks).unwrap();
    assert_eq!(adopted.try_wait(), None);
    adopted.terminate();
    assert_eq!(adopted.wait(Duration::from_secs(10)), Some(Exit::Unknown));
    assert!(Running::adopt(pid, ticks).is_none(), "a zombie is not a running process");
    assert_eq!(running.wait(Duration::from_secs(10)), Some(Exit::Signal(15)));
    assert!(Running::adopt(pid, ticks).is_none());
}
