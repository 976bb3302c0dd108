//! A port that systemd holds for the server.

use crate::harness::Setup;
use rustix::process::{Pid, Signal, kill_process};
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Stdio};

/// Starts the server with a listener of ours as its standard input, as systemd does with `StandardInput=socket`.
fn start_with(setup: &Setup, listener: &TcpListener) -> Child {
    let input = OwnedFd::from(listener.try_clone().unwrap());
    let mut command = setup.command(&[]);
    command.stdin(input).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

fn stop(mut server: Child) {
    kill_process(Pid::from_child(&server), Signal::TERM).unwrap();
    assert!(server.wait().unwrap().success());
}

#[test]
fn a_port_that_systemd_holds_is_served_and_a_request_between_two_servers_is_answered() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let setup = Setup::new().listen(&address.to_string());
    let answer = |mut connection: TcpStream| {
        let mut text = String::new();
        connection.read_to_string(&mut text).map(|_| text).unwrap()
    };
    let ask = || {
        let mut connection = TcpStream::connect(address).unwrap();
        write!(connection, "GET /healthz HTTP/1.0\r\n\r\n").unwrap();
        connection
    };
    for _ in 0..2 {
        let early = ask();
        let server = start_with(&setup, &listener);
        assert!(answer(early).ends_with("\r\n\r\nok"));
        // What the server starts does not have it.
        let input = std::fs::read_link(format!("/proc/{}/fd/0", server.id())).unwrap();
        assert_eq!(input, Path::new("/dev/null"));
        stop(server);
    }
}

#[test]
fn p21_a_port_that_systemd_holds_at_another_address_than_is_set_is_refused_with_the_mend() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let held = listener.local_addr().unwrap();
    // Everywhere is more than this one, and this one is less than everywhere.
    for set in ["127.0.0.2:8080".to_owned(), format!(":{}", held.port())] {
        let output = start_with(&Setup::new().listen(&set), &listener).wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(
            said.contains(&format!("systemd listens on {held}, and LISTEN_ADDR says")),
            "{said}"
        );
        assert!(said.trim_end().ends_with("sudo better-paas install"), "{said}");
    }
}
