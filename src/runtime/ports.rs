//! Gives out the loopback ports of apps.

use crate::sandbox::port_range::RANGE;
use crate::sync::lock;
use rustix::net::sockopt::set_socket_reuseaddr;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Mutex;

/// Gives out ports, one after the other: none comes again so soon, when a client may still be
/// talking to the app that had it. Holds where it looks for the next one.
#[derive(Debug, Default)]
pub struct Ports(Mutex<Option<u16>>);

impl Ports {
    /// A port that nobody uses now, and none of those that apps have or had when they ended.
    ///
    /// # Errors
    /// When there is none, or the system gives no random number.
    pub fn fresh(&self, of_apps: &[u16]) -> io::Result<u16> {
        let mut next = lock(&self.0);
        let mut random = [0; 2];
        getrandom::fill(&mut random).map_err(io::Error::other)?;
        // At first from a random place on, since another server on this machine may look too.
        let size = RANGE.end - RANGE.start;
        let first = next.unwrap_or(u16::from_ne_bytes(random) % size);
        let port = (0..size)
            .map(|n| RANGE.start + (first + n) % size)
            .find(|port| !of_apps.contains(port) && is_free(*port))
            .ok_or_else(|| io::Error::other("no port from 20000 to 29999 is free"))?;
        *next = Some(port + 1 - RANGE.start);
        Ok(port)
    }
}

/// Whether nobody has the port on any address, IPv4 or IPv6. Bound, not listened
/// on: nobody can connect meanwhile. Connections that were closed a moment ago are in nobody's way.
pub fn is_free(port: u16) -> bool {
    let bound = |family, address: IpAddr| {
        // A child that another thread starts just now would keep the port for good.
        let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        set_socket_reuseaddr(&socket, true)?;
        bind(&socket, &SocketAddr::new(address, port))
    };
    let v4 = bound(AddressFamily::INET, Ipv4Addr::UNSPECIFIED.into());
    let v6 = bound(AddressFamily::INET6, Ipv6Addr::UNSPECIFIED.into());
    // A machine without IPv6 says so in another way.
    v4.is_ok() && v6 != Err(rustix::io::Errno::ADDRINUSE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use std::net::TcpListener;
    use std::process::Command;
    use std::sync::atomic::{AtomicBool, Ordering};

    #[test]
    fn ports_are_free_and_never_the_same_twice() {
        let ports = Ports::default();
        let mut seen = HashSet::new();
        for _ in 0..50 {
            let port = ports.fresh(&[]).unwrap();
            assert!(RANGE.contains(&port) && seen.insert(port), "{port}");
        }
        let of_apps: Vec<u16> = RANGE.filter(|port| *port != 25_000).collect();
        assert!(ports.fresh(&of_apps).is_ok_and(|port| port == 25_000) || !is_free(25_000));
    }

    #[test]
    fn a_port_that_somebody_listens_on_is_not_free() {
        for address in ["127.0.0.1:0", "[::1]:0", "0.0.0.0:0"] {
            let listener = TcpListener::bind(address).unwrap();
            assert!(!is_free(listener.local_addr().unwrap().port()), "{address}");
        }
    }

    #[test]
    fn a_child_that_starts_meanwhile_does_not_keep_the_port() {
        let files_of_a_child = || {
            let ls = Command::new("ls").arg("/proc/self/fd").output().unwrap();
            String::from_utf8(ls.stdout).unwrap()
        };
        let usual = files_of_a_child();
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    // A port that no app gets, so that this is in nobody's way.
                    is_free(RANGE.end);
                }
            });
            let odd = (0..100).map(|_| files_of_a_child()).find(|files| *files != usual);
            over.store(true, Ordering::Relaxed);
            assert_eq!(odd, None);
        });
    }
}
