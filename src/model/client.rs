//! Who is counted as one client (P10), and which proxies are trusted to name one (P11).

use super::{Invalid, number};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// One client: an IPv4 address or an IPv6 /64. An IPv4-mapped IPv6 address is
/// its IPv4 address, so that a dual-stack socket gives nobody a second name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Client {
    /// An IPv4 address.
    V4([u8; 4]),
    /// The first 64 bits of an IPv6 address: the smallest block a host is given.
    V6([u8; 8]),
}

impl Client {
    /// The client behind an address.
    pub fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(v4) => Self::V4(v4.octets()),
            IpAddr::V6(v6) => {
                let o = v6.octets();
                Self::V6([o[0], o[1], o[2], o[3], o[4], o[5], o[6], o[7]])
            }
        }
    }

    /// Whether the Internet may know it: it is of no private network and not this machine.
    pub fn is_public(&self) -> bool {
        is_public(&match self {
            Self::V4(octets) => Ipv4Addr::from(*octets).into(),
            Self::V6(first) => {
                let mut all = [0; 16];
                all[..8].copy_from_slice(first);
                // Only the loopback address and the unspecified one begin so.
                let ip = Ipv6Addr::from(all);
                if ip.is_unspecified() { Ipv6Addr::LOCALHOST } else { ip }.into()
            }
        })
    }

    /// Reads what [`fmt::Display`] writes, and any plain address.
    ///
    /// # Errors
    /// [`Invalid`] when it is neither.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let address = text.strip_suffix("/64").unwrap_or(text);
        let bad = "is not a client: write an IPv4 address or an IPv6 address, with or without /64";
        let address: IpAddr = address.parse().map_err(|_| Invalid(bad))?;
        if text.ends_with("/64") && address.is_ipv4() {
            return Err(Invalid("is an IPv4 address with /64; write the address alone"));
        }
        Ok(Self::of(address))
    }
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::V4(o) => write!(f, "{}", Ipv4Addr::from(*o)),
            Self::V6(o) => {
                let mut all = [0; 16];
                all[..8].copy_from_slice(o);
                write!(f, "{}/64", Ipv6Addr::from(all))
            }
        }
    }
}

/// Whether an address is one that the Internet may know: of no private network, nor of this
/// machine or its links.
pub fn is_public(ip: &IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            let shared = ip.octets()[0] == 100 && ip.octets()[1] & 0xc0 == 64;
            !(ip.is_private() || ip.is_loopback() || ip.is_link_local() || shared)
        }
        IpAddr::V6(ip) => !(ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local()),
    }
}

/// A range of addresses in CIDR form (RFC 4632, RFC 4291).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cidr {
    network: u128,
    /// Leading bits that all its addresses share, of `width`.
    length: u32,
    width: u32,
}

impl Cidr {
    /// Reads `10.0.0.0/8`, `fd00::/8` or a single address.
    ///
    /// # Errors
    /// [`Invalid`] when address or length do not parse.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        const BAD: Invalid =
            Invalid("is not an address range: write for example 10.0.0.0/8, fd00::/8 or 192.0.2.7");
        let (address, length) = text.split_once('/').map_or((text, None), |(a, l)| (a, Some(l)));
        let (network, width) = bits(address.parse().map_err(|_| BAD)?);
        let length = length.map_or(Some(width), number).ok_or(BAD)?;
        let host_bits = width.checked_sub(length).ok_or(BAD)?;
        let mask = u128::MAX.checked_shl(host_bits).unwrap_or(0);
        Ok(Self { network: network & mask, length, width })
    }

    /// The first address of the range, and how many of its leading bits all others share.
    pub fn parts(&self) -> (IpAddr, u32) {
        match u32::try_from(self.network) {
            Ok(network) if self.width == 32 => (Ipv4Addr::from(network).into(), self.length),
            _ => (Ipv6Addr::from(self.network).into(), self.length),
        }
    }

    /// Whether the address lies in the range; an IPv4-mapped address counts as IPv4.
    pub fn contains(&self, address: IpAddr) -> bool {
        let (bits, width) = bits(address.to_canonical());
        let differs = (bits ^ self.network).checked_shr(self.width - self.length);
        width == self.width && differs.unwrap_or(0) == 0
    }
}

/// An address as a number, and how many bits that has.
fn bits(address: IpAddr) -> (u128, u32) {
    match address {
        IpAddr::V4(v4) => (u128::from(u32::from(v4)), 32),
        IpAddr::V6(v6) => (u128::from(v6), 128),
    }
}

/// Whose forwarding headers are believed (P11): those of these ranges. The default is nobody's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trust(pub Vec<Cidr>);

/// Loopback and private addresses (RFC 1918, RFC 4193).
const PRIVATE: [&str; 6] =
    ["127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "::1/128", "fc00::/7"];

impl Trust {
    /// In proxies at loopback and private addresses.
    #[must_use]
    pub fn private() -> Self {
        Self(PRIVATE.iter().filter_map(|range| Cidr::parse(range).ok()).collect())
    }

    /// Whether the address is a trusted proxy's.
    pub fn trusts(&self, address: IpAddr) -> bool {
        self.0.iter().any(|range| range.contains(address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_an_ipv4_address_or_an_ipv6_64() {
        let of = |t: &str| Client::of(t.parse().unwrap());
        assert_eq!(of("192.0.2.1"), of("::ffff:192.0.2.1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
        assert_eq!(of("2001:db8:0:1::1"), of("2001:db8:0:1:ffff::9"));
        assert_ne!(of("2001:db8:0:1::1"), of("2001:db8:0:2::1"));
        for text in ["192.0.2.1", "2001:db8:0:1::/64"] {
            assert_eq!(Client::parse(text).unwrap().to_string(), text);
        }
        for bad in ["", "x", "1.2.3", "1.2.3.4/64", "1.2.3.4/8", "::/63"] {
            assert!(Client::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn ranges_hold_what_they_should() {
        let holds = |r: &str, a: &str| Cidr::parse(r).unwrap().contains(a.parse().unwrap());
        assert!(holds("10.0.0.0/8", "10.255.0.1") && holds("10.0.0.0/8", "::ffff:10.1.1.1"));
        assert!(!holds("10.0.0.0/8", "11.0.0.1") && !holds("0.0.0.0/0", "::1"));
        assert!(holds("0.0.0.0/0", "8.8.8.8") && holds("::/0", "2001::1"));
        assert!(holds("fd00::/8", "fdff::1") && !holds("fd00::/8", "fe80::1"));
        assert!(holds("192.0.2.7", "192.0.2.7") && !holds("192.0.2.7/32", "192.0.2.8"));
        for bad in
            ["", "10.0.0.0/33", "10.0.0.0/-1", "10.0.0.0/", "::/129", "10/8", "a/8", "1.1.1.1/+8"]
        {
            assert!(Cidr::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn p11_private_is_what_the_standard_library_takes_for_it() {
        for text in [
            "127.0.0.1",
            "128.0.0.1",
            "10.9.9.9",
            "11.0.0.1",
            "172.16.0.1",
            "172.32.0.1",
            "192.168.1.1",
            "192.169.0.1",
            "::1",
            "::2",
            "fc00::1",
            "fdff::1",
            "fe00::1",
        ] {
            let address: IpAddr = text.parse().unwrap();
            let private = match address {
                IpAddr::V4(v4) => v4.is_loopback() || v4.is_private(),
                IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local(),
            };
            assert_eq!(Trust::private().trusts(address), private, "{text}");
        }
    }
}
