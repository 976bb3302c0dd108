//! Opens the public port (P21).

use crate::config::Listen;
use crate::model::AppId;
use crate::runtime::port_guard::end_holders;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use std::fmt;
use std::fs::{self, Permissions};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::{Duration, Instant};

/// Connections that the kernel keeps for us between two accepts; a burst of a
/// few hundred must not be answered with a timeout.
const BACKLOG: i32 = 1024;

/// How long connections of an ended app may keep its port from others: what is left of them
/// is the kernel's for twice `tcp_fin_timeout`, a minute each.
const LINGERING: Duration = Duration::from_secs(130);
/// Time between two tries meanwhile.
const AGAIN: Duration = Duration::from_millis(50);

/// Why the port could not be opened.
#[derive(Debug)]
pub struct ListenError {
    address: SocketAddr,
    errno: Errno,
}

impl fmt::Display for ListenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = self.address;
        match self.errno {
            Errno::ADDRINUSE => write!(
                f,
                "{address} is in use by another program; stop it, or set LISTEN_ADDR to a free port such as :9090"
            ),
            Errno::ACCESS => write!(
                f,
                "{address} needs the right to open ports below 1024; set LISTEN_ADDR to a port from 1024 on"
            ),
            Errno::ADDRNOTAVAIL => write!(
                f,
                "{address} is not an address of this machine; set LISTEN_ADDR to one that 'ip address' lists"
            ),
            errno => write!(
                f,
                "{address} could not be opened ({}); set LISTEN_ADDR to another address",
                io::Error::from(errno)
            ),
        }
    }
}

impl std::error::Error for ListenError {}

/// Opens what the configuration names: one address, or all of the machine's
/// with one socket that takes IPv4 and IPv6 whatever `bindv6only` says.
///
/// # Errors
/// One sentence on why the address cannot be had.
fn open(listen: &Listen) -> Result<TcpListener, ListenError> {
    match *listen {
        Listen::All { port } => {
            let both = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
            match bind(both, true) {
                // A kernel without IPv6.
                Err(ListenError { errno: Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL, .. }) => {
                    bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)), false)
                }
                result => result,
            }
        }
        Listen::One(address) => bind(address, false),
    }
}

/// Opens what the configuration names, also when an app of ours has taken it while no server
/// ran. `apps` is where apps are; answers too which of them were ended for it. `stop`
/// says when the server is to end meanwhile.
///
/// # Errors
/// As [`open`].
pub(super) fn open_or_take_back(
    listen: &Listen,
    apps: &Path,
    mut stop: impl FnMut() -> bool,
) -> Result<(TcpListener, Vec<AppId>), ListenError> {
    let mut ended = Vec::new();
    let (mut until, mut told) = (None, false);
    loop {
        let error = match open(listen) {
            Ok(listener) => return Ok((listener, ended)),
            Err(error) if error.errno == Errno::ADDRINUSE => error,
            Err(error) => return Err(error),
        };
        let more = end_holders(apps, error.address.port(), &|app| {
            log::error!("app {app} has taken {} while no server ran; it is ended", error.address);
        });
        if !more.is_empty() {
            ended.extend(more);
            until = Some(Instant::now() + LINGERING);
        } else if until.is_some_and(|until| Instant::now() < until) && !stop() {
            if !std::mem::replace(&mut told, true) {
                let address = error.address;
                log::warn!("waiting for what is left of its connections at {address} to end");
            }
            std::thread::sleep(AGAIN);
        } else {
            return Err(error);
        }
    }
}

fn bind(address: SocketAddr, both_families: bool) -> Result<TcpListener, ListenError> {
    let family = if address.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
    let opened = || -> Result<TcpListener, Errno> {
        let socket =
            rustix::net::socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        sockopt::set_socket_reuseaddr(&socket, true)?;
        if address.is_ipv6() {
            sockopt::set_ipv6_v6only(&socket, !both_families)?;
        }
        rustix::net::bind(&socket, &address)?;
        rustix::net::listen(&socket, BACKLOG)?;
        Ok(TcpListener::from(socket))
    };
    opened().map_err(|errno| ListenError { address, errno })
}

/// Opens the socket at which our own router asks for the dashboard. It lies in the data
/// directory, which nobody else can enter.
pub(super) fn for_router(path: &Path) -> io::Result<UnixListener> {
    // We hold the lock, so a socket that is there belongs to nobody.
    let _ = fs::remove_file(path);
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, Permissions::from_mode(0o600))?;
    rustix::net::listen(&listener, BACKLOG)?;
    Ok(listener)
}
