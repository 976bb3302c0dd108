//! Opens the public port (P21).

use crate::config::Listen;
use crate::gate::BACKLOG;
use crate::model::AppId;
use crate::runtime::port_guard::end_holders;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::AsFd as _;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long connections of an ended app may keep its port from others: what is left of them
/// is the kernel's for twice `tcp_fin_timeout`, a minute each.
const LINGERING: Duration = Duration::from_secs(130);
/// Time between two tries meanwhile.
const AGAIN: Duration = Duration::from_millis(50);

/// Why an address could not be opened, and what to do.
fn sentence(address: SocketAddr, errno: Errno) -> String {
    match errno {
        Errno::ADDRINUSE => format!(
            "{address} is in use by another program; stop it, or set LISTEN_ADDR to a free port such as :9090"
        ),
        Errno::ACCESS => format!(
            "{address} needs the right to open ports below 1024; set LISTEN_ADDR to a port from 1024 on"
        ),
        Errno::ADDRNOTAVAIL => format!(
            "{address} is not an address of this machine; set LISTEN_ADDR to one that 'ip address' lists"
        ),
        errno => format!(
            "{address} could not be opened ({}); set LISTEN_ADDR to another address",
            io::Error::from(errno)
        ),
    }
}

/// Opens what the configuration names: one address, or all of the machine's
/// with one socket that takes IPv4 and IPv6 whatever `bindv6only` says.
///
/// # Errors
/// Which address cannot be had, and why.
fn open(listen: &Listen) -> Result<TcpListener, (SocketAddr, Errno)> {
    let open = |address, both| bind(address, both).map_err(|errno| (address, errno));
    match open(listen.address, listen.everywhere) {
        // A kernel without IPv6.
        Err((address, Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL)) if listen.everywhere => {
            open((Ipv4Addr::UNSPECIFIED, address.port()).into(), false)
        }
        result => result,
    }
}

/// The listener that systemd has opened for us, if it has: standard input is one then
/// (`StandardInput=socket`), which our children shall not have.
///
/// # Errors
/// When it is at another address than the configuration names, or cannot be taken.
pub(super) fn handed_over(listen: &Listen) -> Result<Option<TcpListener>, String> {
    let input = io::stdin();
    if !matches!(sockopt::socket_acceptconn(&input), Ok(true)) {
        return Ok(None);
    }
    let unusable = |why: io::Error| format!("the socket that is standard input is no use: {why}");
    let listener = TcpListener::from(input.as_fd().try_clone_to_owned().map_err(unusable)?);
    let nothing = File::open("/dev/null").map_err(unusable)?;
    rustix::stdio::dup2_stdin(nothing).map_err(|errno| unusable(errno.into()))?;
    let address = listener.local_addr().map_err(unusable)?;
    let is_meant = if listen.everywhere {
        address.ip().is_unspecified() && address.port() == listen.address.port()
    } else {
        address == listen.address
    };
    if is_meant {
        return Ok(Some(listener));
    }
    Err(format!(
        "systemd listens on {address}, and LISTEN_ADDR says {}; to have it listen there, run: \
         sudo better-paas install",
        listen.address
    ))
}

/// Opens what the configuration names, also when an app of ours has taken it while no server
/// ran. `apps` is where apps are; answers too which of them were ended for it. `stop`
/// says when the server is to end meanwhile.
///
/// # Errors
/// One sentence on why the address cannot be had.
pub(super) fn open_or_take_back(
    listen: &Listen,
    apps: &Path,
    mut stop: impl FnMut() -> bool,
) -> Result<(TcpListener, Vec<AppId>), String> {
    let mut ended = Vec::new();
    let mut until = None;
    loop {
        let (address, errno) = match open(listen) {
            Ok(listener) => return Ok((listener, ended)),
            Err(failure) => failure,
        };
        if errno != Errno::ADDRINUSE {
            return Err(sentence(address, errno));
        }
        let more = end_holders(apps, address.port(), &|app| {
            log::error!(
                "app {app} has taken {address} while no server ran; it is ended, and then what is \
                 left of its connections there"
            );
        });
        if !more.is_empty() {
            ended.extend(more);
            until = Some(Instant::now() + LINGERING);
        } else if until.is_some_and(|until| Instant::now() < until) && !stop() {
            std::thread::sleep(AGAIN);
        } else {
            return Err(sentence(address, errno));
        }
    }
}

fn bind(address: SocketAddr, both_families: bool) -> Result<TcpListener, Errno> {
    let family = if address.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
    let socket = rustix::net::socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, !both_families)?;
    }
    rustix::net::bind(&socket, &address)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(TcpListener::from(socket))
}
