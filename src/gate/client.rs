//! Finds the client behind a connection, past the proxies that are trusted (P10, P11).

use crate::model::{Client, Trust};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Who sent a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Source {
    /// Whose record counts (P10): the peer, or whom a trusted proxy names (P11).
    pub client: Client,
    /// Whether the peer is a trusted proxy, which speaks for many clients.
    pub trusted_proxy: bool,
    /// Whether a trusted proxy says that the client came over HTTPS.
    pub https: bool,
    /// Whether it came over plain HTTP, as far as that is known.
    pub plain: bool,
    /// Whether it has the header of a proxy that is not trusted.
    pub unheeded: bool,
}

impl Source {
    /// Finds the source of a request as [`client_address`] does; `forwarded_proto` is the last
    /// `X-Forwarded-Proto`, which the proxy next to us wrote.
    pub(super) fn find(
        trust: &Trust,
        peer: Option<IpAddr>,
        forwarded_for: &[&[u8]],
        forwarded_proto: Option<&[u8]>,
    ) -> Self {
        let (address, trusted_proxy) = client_address(trust, peer, forwarded_for);
        // A list of several protocols is no clear word, so it does not count as https.
        let https = forwarded_proto.is_some_and(|p| p.trim_ascii().eq_ignore_ascii_case(b"https"));
        let https = trusted_proxy && https;
        let plain = !https && (!trusted_proxy || forwarded_proto.is_some());
        let unheeded = !trusted_proxy && !forwarded_for.is_empty();
        Self { client: Client::of(address), trusted_proxy, https, plain, unheeded }
    }
}

/// The client's address, an IPv4-mapped one as IPv4, and whether the peer is a trusted proxy.
/// No peer is a proxy of our own, which is trusted always. `forwarded_for` are the
/// `X-Forwarded-For` headers in the order they came; each may be a list.
///
/// Headers count only when the peer is trusted. Then every proxy wrote, at the
/// right end, the address that it saw: reading from the right, the first address
/// that is no trusted proxy is the client, and what stands to the left of it is
/// hearsay. An entry that is no address ends the walk, since nothing to the left
/// of it can be vouched for; the last trusted address before it is the client
/// then, as it is when all of them are trusted.
#[must_use]
pub fn client_address(
    trust: &Trust,
    peer: Option<IpAddr>,
    forwarded_for: &[&[u8]],
) -> (IpAddr, bool) {
    let mut address = peer.map_or(Ipv4Addr::LOCALHOST.into(), |peer| peer.to_canonical());
    if peer.is_some() && !trust.trusts(address) {
        return (address, false);
    }
    let entries = forwarded_for.iter().rev().flat_map(|h| h.rsplit(|b| *b == b','));
    for entry in entries {
        let Some(next) = entry_address(entry.trim_ascii()) else { break };
        address = next;
        if !trust.trusts(address) {
            break;
        }
    }
    (address, true)
}

/// One entry: an address, alone or with a port as some proxies write it; IPv6
/// with brackets or, when it has no port, without.
fn entry_address(entry: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(entry).ok().filter(|text| !text.contains('%'))?;
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let address = match bare {
        Some(inside) => inside.parse::<Ipv6Addr>().ok()?.into(),
        None => text.parse().or_else(|_| text.parse().map(|at: SocketAddr| at.ip())).ok()?,
    };
    Some(address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Cidr;
    use proptest::prelude::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn ranges(all: &[&str]) -> Trust {
        Trust(all.iter().map(|r| Cidr::parse(r).unwrap()).collect())
    }

    fn found(trust: &Trust, peer: &str, headers: &[&str]) -> String {
        let headers: Vec<_> = headers.iter().map(|h| h.as_bytes()).collect();
        let (address, trusted_proxy) = client_address(trust, Some(ip(peer)), &headers);
        let client = Client::of(address);
        let unheeded = !trusted_proxy && !headers.is_empty();
        let plain = !trusted_proxy;
        let source = Source { client, trusted_proxy, https: false, plain, unheeded };
        assert_eq!(Source::find(trust, Some(ip(peer)), &headers, None), source);
        address.to_string()
    }

    #[test]
    fn p11_without_trust_the_peer_is_the_client() {
        assert_eq!(found(&Trust::default(), "127.0.0.1", &["8.8.8.8"]), "127.0.0.1");
        assert_eq!(found(&Trust::private(), "9.9.9.9", &["8.8.8.8"]), "9.9.9.9");
        assert_eq!(found(&ranges(&["10.0.0.1"]), "10.0.0.2", &["8.8.8.8"]), "10.0.0.2");
        let peer = Some(ip("9.9.9.9"));
        let source = Source::find(&Trust::private(), peer, &[b"8.8.8.8"], Some(b"https"));
        assert!(!source.trusted_proxy && !source.https);
    }

    #[test]
    fn p11_private_means_loopback_and_private_addresses() {
        for peer in ["127.0.0.1", "127.9.9.9", "10.1.1.1", "172.16.0.1", "172.31.255.255"] {
            assert_eq!(found(&Trust::private(), peer, &["8.8.8.8"]), "8.8.8.8", "{peer}");
        }
        for peer in ["192.168.3.4", "::1", "fd12::1", "fc00::1", "::ffff:10.0.0.1"] {
            assert_eq!(found(&Trust::private(), peer, &["8.8.8.8"]), "8.8.8.8", "{peer}");
        }
        for peer in ["172.32.0.1", "100.64.0.1", "169.254.1.1", "fe80::1", "2001:db8::1", "0.0.0.0"]
        {
            assert_eq!(found(&Trust::private(), peer, &["8.8.8.8"]), peer);
        }
    }

    #[test]
    fn p11_the_right_most_address_that_is_no_trusted_proxy_is_the_client() {
        let trust = ranges(&["10.0.0.0/8", "fd00::/8"]);
        for (headers, client) in [
            (&[][..], "10.0.0.1"),
            (&["8.8.8.8"], "8.8.8.8"),
            (&["8.8.8.8, 9.9.9.9"], "9.9.9.9"),
            (&["8.8.8.8, 9.9.9.9, 10.0.0.2"], "9.9.9.9"),
            (&["8.8.8.8,\t10.0.0.3 ,10.0.0.2 "], "8.8.8.8"),
            (&["7.7.7.7", "8.8.8.8", "10.0.0.2, fd00::2"], "8.8.8.8"),
            (&["7.7.7.7, 8.8.8.8", "10.0.0.2"], "8.8.8.8"),
            (&["127.0.0.1"], "127.0.0.1"),
            (&["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
            (&["2001:db8::9"], "2001:db8::9"),
        ] {
            assert_eq!(found(&trust, "10.0.0.1", headers), client, "{headers:?}");
        }
    }

    #[test]
    fn p11_an_entry_that_is_no_address_ends_the_walk() {
        for (header, client) in [
            ("8.8.8.8, unknown", "127.0.0.1"),
            ("8.8.8.8, unknown, 10.0.0.2", "10.0.0.2"),
            ("8.8.8.8,", "127.0.0.1"),
            ("", "127.0.0.1"),
            ("8.8.8.8 9.9.9.9", "127.0.0.1"),
            ("8.8.8.256", "127.0.0.1"),
            ("8.8.8", "127.0.0.1"),
            ("08.8.8.8", "127.0.0.1"),
            ("\"8.8.8.8\"", "127.0.0.1"),
            ("for=8.8.8.8", "127.0.0.1"),
            ("8.8.8.8:", "127.0.0.1"),
            ("8.8.8.8:+1", "127.0.0.1"),
            ("8.8.8.8:65536", "127.0.0.1"),
            ("[8.8.8.8]", "127.0.0.1"),
            ("[2001:db8::1", "127.0.0.1"),
            ("[2001:db8::1]x", "127.0.0.1"),
            ("fe80::1%eth0", "127.0.0.1"),
            ("8.8.8.8\0", "127.0.0.1"),
        ] {
            assert_eq!(found(&Trust::private(), "127.0.0.1", &[header]), client, "{header:?}");
        }
        let found = client_address(&Trust::private(), Some(ip("::1")), &[b"8.8.8.8, \xff"]);
        assert_eq!(found, (ip("::1"), true));
    }

    #[test]
    fn p10_ports_brackets_and_mapped_addresses_do_not_make_another_client() {
        for (entry, client) in [
            ("8.8.8.8:1234", "8.8.8.8"),
            ("::ffff:8.8.8.8", "8.8.8.8"),
            ("[::ffff:808:808]:99", "8.8.8.8"),
            ("[2001:db8::1]", "2001:db8::1"),
            ("[2001:db8::1]:443", "2001:db8::1"),
            ("2001:DB8:0::1", "2001:db8::1"),
        ] {
            assert_eq!(found(&Trust::private(), "::ffff:127.0.0.1", &[entry]), client, "{entry}");
        }
        // A mapped private address is the private address, so the walk goes on.
        assert_eq!(found(&Trust::private(), "::1", &["8.8.8.8, ::ffff:10.0.0.1"]), "8.8.8.8");
        assert_eq!(found(&Trust::default(), "::ffff:9.9.9.9", &[]), "9.9.9.9");
    }

    #[test]
    fn https_is_believed_of_a_trusted_proxy_only_and_only_in_clear_words() {
        let https = |peer: &str, proto: &[u8]| {
            Source::find(&Trust::private(), Some(ip(peer)), &[b"8.8.8.8"], Some(proto)).https
        };
        assert!(https("127.0.0.1", b"https") && https("127.0.0.1", b" HTTPS "));
        assert!(!https("9.9.9.9", b"https"));
        for proto in [&b"http"[..], b"", b"https, http", b"http, https", b"httpsx", b"\xff"] {
            assert!(!https("127.0.0.1", proto));
        }
    }

    proptest! {
        #[test]
        fn p11_what_a_client_writes_changes_nothing(
            written in proptest::collection::vec("[ -~]{0,40}", 0..4),
            same_line in any::<bool>(),
        ) {
            let mut lines = written;
            let seen = "203.0.113.7, 10.0.0.2".to_owned();
            match lines.last_mut() {
                Some(last) if same_line => *last = format!("{last}, {seen}"),
                _ => lines.push(seen),
            }
            let lines: Vec<_> = lines.iter().map(String::as_str).collect();
            prop_assert_eq!(found(&Trust::private(), "127.0.0.1", &lines), "203.0.113.7");
        }

        #[test]
        fn no_header_makes_it_panic(header in proptest::collection::vec(any::<u8>(), 0..80)) {
            let peer = Some(ip("::1"));
            let _ = Source::find(&Trust::private(), peer, &[&header], Some(&header));
        }
    }
}
