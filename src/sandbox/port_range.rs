//! Which ports apps get, and which the kernel gives to others.

use std::fs;

/// The ports that apps get. Below the range out of which Linux takes ports for
/// outgoing connections (32768 and up), so that none is gone between our look
/// and the app's `bind`; one range, so that a firewall can name it.
pub const RANGE: std::ops::Range<u16> = 20_000..30_000;

/// The ports out of which the kernel picks one for a program that does not care (ip(7)).
pub fn picked_by_kernel() -> std::ops::RangeInclusive<u16> {
    let text = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let numbers = text.split_ascii_whitespace().filter_map(|number| number.parse().ok());
    // Where nobody knows: all of them.
    if let [first, last] = numbers.collect::<Vec<_>>()[..] { first..=last } else { 0..=u16::MAX }
}
