//! What an app reaches of this machine, tried from a sandbox: the program of the try, and how
//! its findings are written.

use serde::{Deserialize, Serialize};
use std::io::{self, ErrorKind, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::{self, net::UnixStream};
use std::time::Duration;

/// The word after the program's name that makes it this; addresses and the name of an abstract
/// socket follow.
pub const COMMAND: &str = "probe-sandbox";

/// How long a connection may hang, as it does where a firewall drops packets silently.
const HANGING: Duration = Duration::from_secs(3);

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
pub(super) fn run(words: &[String]) -> io::Result<()> {
    let (name, addresses) = words.split_last().ok_or(ErrorKind::InvalidInput)?;
    let addresses: Result<Vec<SocketAddr>, _> = addresses.iter().map(|a| a.parse()).collect();
    let mut reached = addresses.map_err(io::Error::other)?;
    reached.retain(|address| TcpStream::connect_timeout(address, HANGING).is_ok());
    let (takes_ports, reaches_abstract) = (takes_ports()?, reaches_abstract(name)?);
    let found = Findings { reached, takes_ports, reaches_abstract };
    writeln!(io::stdout(), "{}", serde_json::to_string(&found)?)
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
    match UnixStream::connect_addr(&unix::net::SocketAddr::from_abstract_name(name)?) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Ok(false),
        Err(error) => Err(error),
    }
}
