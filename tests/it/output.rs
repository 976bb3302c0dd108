//! Output that cannot be written: the disk is full, or whoever read it went away.

use crate::harness::server::free_port;
use crate::harness::{Http, Server, Setup, process, until};
use rustix::fs::OFlags;
use rustix::process::Signal;
use std::io::{Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::process::Child;
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

/// A server that ends with the test, however that ends.
struct Ending(Child);

impl Drop for Ending {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _gone = self.0.wait();
    }
}

#[test]
fn a_log_that_nobody_reads_holds_nobody_up_and_says_later_what_it_lacks() {
    // As with a terminal that was stopped, or a connection over SSH that hangs.
    let address = format!("127.0.0.1:{}", free_port());
    let setup = Setup::new().listen(&address);
    let address = address.parse().expect("an address");
    let (mut log, end) = std::io::pipe().expect("a pipe");
    // Opened anew, or the server's end would not wait either.
    let stuffing = std::fs::File::options()
        .write(true)
        .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
        .open(format!("/proc/self/fd/{}", end.as_raw_fd()))
        .expect("the pipe");
    let mut child = Ending(setup.command(&[]).stderr(end).spawn().expect("a start"));
    let child = &mut child.0;
    until("it listens", LIMIT, || setup.run(&["lockouts"]).code == Some(0));
    let token = setup.run(&["token"]).stdout.trim().to_owned();
    let mut stuffed = 0;
    while (&stuffing).write(b"x").is_ok() {
        stuffed += 1;
    }
    assert!(stuffed > 0);

    // Two of these have a line in the log, the first and the last.
    let mut guesser = Http::new(address).coming_from([127, 0, 0, 9]).bearer("guess");
    for _ in 0..5 {
        guesser.get("/api/session").expect(401);
    }
    Http::new(address).bearer(&token).get("/api/session").expect(200);

    let mut begin = Vec::new();
    while begin.iter().rev().take_while(|byte| **byte == b'x').count() < stuffed {
        let mut piece = [0; 4096];
        let read = log.read(&mut piece).expect("the log");
        begin.extend_from_slice(&piece[..read]);
    }
    drop(stuffing);
    process::signal(child.id(), Signal::TERM);
    until("it has ended", LIMIT, || child.try_wait().expect("a status").is_some());
    let mut rest = String::new();
    log.read_to_string(&mut rest).expect("the log");
    assert!(rest.contains("2 lines of this log are missing here"), "{rest}");
    assert!(rest.contains("stopping") && rest.contains("stopped"), "{rest}");
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
