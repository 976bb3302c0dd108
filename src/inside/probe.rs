//! What an app reaches of this machine, tried from a sandbox: the program of the try, and how
//! its findings are written.

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use serde::{Deserialize, Serialize};
use std::io::{self, ErrorKind, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::ExitCode;
use std::time::Duration;

/// The word after the program's name that makes it this; addresses and the name of an abstract
/// socket follow.
pub const COMMAND: &str = "probe-sandbox";

/// How long a connection may hang, as it does where a firewall drops packets silently.
const HANGING: Duration = Duration::from_secs(5);

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Findings {
    /// Addresses of this machine that could be connected to.
    pub reached: Vec<SocketAddr>,
    /// A TCP port that is not the app's could be listened on.
    pub takes_ports: bool,
    /// An abstract Unix socket of another process could be connected to.
    pub reaches_abstract: bool,
}

/// Tries all of it and prints the findings as JSON.
#[must_use]
pub fn run(words: &[String]) -> ExitCode {
    let found = look(words).and_then(|found| {
        let text = serde_json::to_string(&found).map_err(io::Error::other)?;
        writeln!(io::stdout(), "{text}")
    });
    match found {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "{error}");
            ExitCode::FAILURE
        }
    }
}

fn look(words: &[String]) -> io::Result<Findings> {
    let (name, addresses) = words.split_last().ok_or(ErrorKind::InvalidInput)?;
    let addresses = addresses.iter().map(|a| a.parse().map_err(io::Error::other));
    let addresses: Vec<SocketAddr> = addresses.collect::<io::Result<_>>()?;
    // One after the other would wait for each that hangs.
    let reached = std::thread::scope(|scope| {
        let tries: io::Result<Vec<_>> = addresses
            .iter()
            .map(|address| {
                let reaches = || TcpStream::connect_timeout(address, HANGING).is_ok();
                std::thread::Builder::new().spawn_scoped(scope, reaches)
            })
            .collect();
        // Nobody knows what a try would have found that has ended with a panic.
        let reached = tries?.into_iter().map(|t| t.join().map_err(|_| io::Error::other("a panic")));
        reached.collect::<io::Result<Vec<bool>>>()
    })?;
    let reached = addresses.iter().zip(reached).filter(|(_, reached)| *reached);
    Ok(Findings {
        reached: reached.map(|(address, _)| *address).collect(),
        takes_ports: takes_ports()?,
        reaches_abstract: reaches_abstract(name)?,
    })
}

/// Whether this process may listen at a port that was not given to it.
fn takes_ports() -> io::Result<bool> {
    let here = IpAddr::from(Ipv4Addr::LOCALHOST);
    // One that is free: it was the kernel's to give.
    let port = TcpListener::bind((here, 0))?.local_addr()?.port();
    match TcpListener::bind((here, port)) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Ok(false),
        // Another has it already: so it could be had.
        Err(error) if error.kind() == ErrorKind::AddrInUse => Ok(true),
        Err(error) => Err(error),
    }
}

fn reaches_abstract(name: &str) -> io::Result<bool> {
    let address = SocketAddrUnix::new_abstract_name(name.as_bytes())?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    match connect(&socket, &address) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::PERM) => Ok(false),
        Err(error) => Err(error.into()),
    }
}
