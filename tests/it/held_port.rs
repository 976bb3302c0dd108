//! A port that systemd holds for the server.

use crate::harness::{Setup, until};
use rustix::process::{Pid, Signal, kill_process};
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

/// Far longer than a start takes that is refused.
const PATIENCE: Duration = Duration::from_secs(30);

/// A server, which ends with the test.
struct Running(Child);

impl Running {
    /// Starts it with a listener of ours as its standard input, as systemd does with `StandardInput=socket`.
    fn with(setup: &Setup, listener: &TcpListener) -> Self {
        let input = OwnedFd::from(listener.try_clone().unwrap());
        let mut command = setup.command(&[]);
        Self(command.stdin(input).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap())
    }

    fn stop(mut self) {
        kill_process(Pid::from_child(&self.0), Signal::TERM).unwrap();
        assert!(self.0.wait().unwrap().success());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
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
        let server = Running::with(&setup, &listener);
        assert!(answer(early).ends_with("\r\n\r\nok"));
        // What the server starts does not have it.
        let input = std::fs::read_link(format!("/proc/{}/fd/0", server.0.id())).unwrap();
        assert_eq!(input, Path::new("/dev/null"));
        server.stop();
    }
}

#[test]
fn p21_a_port_that_systemd_holds_at_another_address_than_is_set_is_refused_with_the_mend() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let held = listener.local_addr().unwrap();
    // Everywhere is more than this one, and this one is less than everywhere.
    for set in ["127.0.0.2:8080".to_owned(), format!(":{}", held.port())] {
        let mut server = Running::with(&Setup::new().listen(&set), &listener);
        let server = &mut server.0;
        until("it ends", PATIENCE, || server.try_wait().unwrap().is_some());
        let mut said = String::new();
        server.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert_eq!(server.wait().unwrap().code(), Some(1), "{said}");
        assert!(
            said.contains(&format!("systemd listens on {held}, and LISTEN_ADDR says")),
            "{said}"
        );
        assert!(said.trim_end().ends_with("sudo better-paas install"), "{said}");
    }
}
