//! Output that cannot be written: the disk is full, or whoever read it went away.

use crate::harness::{Server, Setup, process, until};
use rustix::process::Signal;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(20);

#[test]
fn a_first_start_whose_messages_cannot_be_written_goes_well() {
    let setup = Setup::new();
    let file = || std::fs::File::options().write(true).open("/dev/full").expect("a full device");
    let mut child = setup.command(&[]).stdout(file()).stderr(file()).spawn().expect("a start");
    until("it answers", LIMIT, || {
        assert_eq!(child.try_wait().expect("a status"), None, "it has ended");
        setup.run(&["lockouts"]).code == Some(0)
    });
    let token = setup.run(&["token"]);
    assert!(token.code == Some(0) && token.stdout.starts_with("bpaas_"), "{token:?}");
    // As the kernel names it: by that the operator finds it.
    let name = std::fs::read_to_string(format!("/proc/{}/comm", child.id())).expect("a name");
    assert_eq!(name, "server\n");
    process::signal(child.id(), Signal::TERM);
    until("it has ended", LIMIT, || child.try_wait().expect("a status").is_some());
    let wrong = setup.command(&["no-such-command"]).stderr(file()).status().expect("a run");
    assert_eq!(wrong.code(), Some(2));
}

#[test]
fn p5_what_cannot_be_shown_is_an_error_and_a_rotation_says_what_happened() {
    let server = Server::start();
    let full = |words: &[&str]| {
        let file = std::fs::File::options().write(true).open("/dev/full").expect("a full device");
        let output = server.setup().command(words).stdout(file).output().expect("a run");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    for words in [&["token"][..], &["lockouts"], &["version"], &["help"]] {
        let (code, error) = full(words);
        assert!(code == Some(1) && error.contains("standard output"), "{words:?}: {error}");
        assert!(error.starts_with("server: ") && error.lines().count() == 1, "{error}");
    }
    let old = server.token();
    let (code, error) = full(&["token", "--rotate"]);
    assert!(code == Some(1) && error.contains("a new token is in force"), "{error}");
    assert!(error.contains("'server token' prints it"), "{error}");
    let new = server.token();
    assert!(new != old && !error.contains(&new), "{error}");
    until("the new one counts", LIMIT, || server.owner().get("/api/session").status == 200);

    // A reader that went away is no error.
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let output = server.setup().command(&["help"]).stdout(writer).output().expect("a run");
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}
