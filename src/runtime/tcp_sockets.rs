//! TCP sockets of the machine: who listens, and who is connected.

use crate::proc::table::Entry;
use crate::sandbox::port_range::RANGE;
use std::collections::HashSet;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// A socket of the machine's network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Socket {
    /// Its own address and port.
    pub address: SocketAddr,
    /// Whose it is.
    pub uid: u32,
    /// What its holders know it by.
    pub inode: u64,
}

impl Socket {
    /// Whether a connection to 127.0.0.1 reaches it.
    pub fn is_on_loopback(&self) -> bool {
        let ip = self.address.ip().to_canonical();
        ip.is_unspecified() || ip == Ipv4Addr::LOCALHOST
    }
}

/// Every listening TCP socket.
pub fn listeners() -> Vec<Socket> {
    sockets("0A").unwrap_or_default()
}

/// The local ports of all TCP connections that are open (state 01, ESTABLISHED), which
/// they are before an app has accepted them.
///
/// # Errors
/// When the kernel does not tell.
pub fn busy_ports() -> io::Result<HashSet<u16>> {
    Ok(sockets("01")?.iter().map(|socket| socket.address.port()).collect())
}

/// The TCP sockets in this state.
fn sockets(state: &str) -> io::Result<Vec<Socket>> {
    let mut all = Vec::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        match fs::read_to_string(table) {
            Ok(text) => all.extend(text.lines().skip(1).filter_map(|line| read_line(line, state))),
            // A machine without IPv6.
            Err(error) if error.kind() == io::ErrorKind::NotFound && table.ends_with('6') => {}
            Err(error) => return Err(error),
        }
    }
    Ok(all)
}

/// A line of `/proc/net/tcp` (proc_pid_net(5)), if the socket is in this state: the address is
/// in hex, in words of this machine's byte order; the fourth field is the state (0A is LISTEN),
/// the eighth the uid, the tenth the inode.
fn read_line(line: &str, state: &str) -> Option<Socket> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    let (address, port) = fields.next()?.split_once(':')?;
    if fields.nth(1)? != state {
        return None;
    }
    let words = address.as_bytes().chunks(8).map(|word| {
        let word = u32::from_str_radix(std::str::from_utf8(word).ok()?, 16).ok()?;
        Some(word.to_ne_bytes())
    });
    let bytes = words.collect::<Option<Vec<_>>>()?.concat();
    let ip = match <[u8; 4]>::try_from(bytes.as_slice()) {
        Ok(v4) => IpAddr::from(v4),
        Err(_) => IpAddr::from(<[u8; 16]>::try_from(bytes.as_slice()).ok()?),
    };
    let port = u16::from_str_radix(port, 16).ok()?;
    let (uid, inode) = (fields.nth(3)?.parse().ok()?, fields.nth(1)?.parse().ok()?);
    Some(Socket { address: SocketAddr::new(ip, port), uid, inode })
}

/// The listening sockets that these processes hold. Where they run as a `uid` that is
/// nobody else's, an ordinary user's server may not look into them; then those of this
/// uid count, but for ports that are given out: the release before may have one.
pub fn held_by(
    processes: &[Entry],
    uid: Option<u32>,
    port: u16,
    listeners: &[Socket],
) -> Vec<Socket> {
    let of_the_user = |l: &Socket| {
        uid == Some(l.uid) && (l.address.port() == port || !RANGE.contains(&l.address.port()))
    };
    let (mut inodes, mut closed) = (HashSet::new(), false);
    for process in processes {
        match sockets_of(process.pid) {
            Ok(found) => inodes.extend(found),
            Err(error) => closed |= error.kind() == io::ErrorKind::PermissionDenied,
        }
    }
    let theirs = |l: &&Socket| inodes.contains(&l.inode) || (closed && of_the_user(l));
    listeners.iter().filter(theirs).cloned().collect()
}

/// The inodes of the sockets that a process has open.
///
/// # Errors
/// When it has ended, or this process may not look into it.
pub fn sockets_of(pid: u32) -> io::Result<HashSet<u64>> {
    let mut inodes = HashSet::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))?.filter_map(Result::ok) {
        let Ok(target) = fs::read_link(entry.path()) else { continue };
        let inode = target.to_str().and_then(|t| t.strip_prefix("socket:[")?.strip_suffix(']'));
        inodes.extend(inode.and_then(|i| i.parse::<u64>().ok()));
    }
    Ok(inodes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proc::table;
    use crate::runtime::ports::Ports;
    use std::net::{TcpListener, TcpStream};
    use std::time::{Duration, Instant};

    #[test]
    fn listeners_are_found_with_their_owner() {
        let me = [table::entry(std::process::id()).unwrap()];
        for (address, reachable) in [("127.0.0.1:0", true), ("[::]:0", true), ("[::1]:0", false)] {
            let listener = TcpListener::bind(address).unwrap();
            let local = listener.local_addr().unwrap();
            let all = listeners();
            let found = all.iter().find(|l| l.address == local).unwrap();
            assert_eq!(found.is_on_loopback(), reachable, "{address}");
            let uid = rustix::process::geteuid().as_raw();
            assert_eq!(found.uid, uid);
            assert!(held_by(&me, None, 0, &all).contains(found));
            assert!(!held_by(&[], None, 0, &all).contains(found));
        }
        let line = "0: 0100007F:1F90 00000000:0000 01 0:0 0:0 0 5 0 7 1";
        assert_eq!(read_line(line, "0A"), None);
        let found = read_line(line, "01").unwrap();
        assert_eq!((found.address.port(), found.uid, found.inode), (8080, 5, 7));
        assert_eq!(read_line("garbage", "0A"), None);
    }

    #[test]
    fn a_port_is_busy_while_somebody_is_connected_even_if_nobody_accepts() {
        for (address, client) in [("127.0.0.1", "127.0.0.1"), ("::1", "::1"), ("::", "127.0.0.1")] {
            let [ip, client] = [address, client].map(|ip| ip.parse::<IpAddr>().unwrap());
            let port = Ports::default().fresh(&[]).unwrap();
            let listener = TcpListener::bind((ip, port)).unwrap();
            assert!(!busy_ports().unwrap().contains(&port), "{address}: nobody is connected");
            let client = TcpStream::connect((client, port)).unwrap();
            assert!(busy_ports().unwrap().contains(&port), "{address}");
            drop((client, listener));
            // The kernel may take a moment to tell the side that nobody accepted.
            let until = Instant::now() + Duration::from_secs(20);
            while busy_ports().unwrap().contains(&port) {
                assert!(Instant::now() < until, "{address}: nobody is any more");
                std::thread::yield_now();
            }
        }
    }
}
