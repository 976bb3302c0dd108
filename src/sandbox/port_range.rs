//! Which ports apps get, and which the kernel gives to others.

use std::fs;

/// The ports that apps get. Below the range out of which Linux takes ports for
/// outgoing connections (32768 and up), so that none is gone between our look
/// and the app's `bind`; one range, so that a firewall can name it.
pub const RANGE: std::ops::Range<u16> = 20_000..30_000;

/// The ports out of which the kernel picks one for a program that does not care (ip(7)).
#[must_use]
pub fn picked_by_kernel() -> std::ops::RangeInclusive<u16> {
    let text = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let mut numbers = text.split_ascii_whitespace().map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(first)), Some(Ok(last))) => first..=last,
        // Nobody knows: all of them.
        _ => 0..=u16::MAX,
    }
}
