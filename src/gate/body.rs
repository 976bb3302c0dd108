//! The request body: read whole, before anybody behind the gate hears of it.

use super::admission::Permit;
use super::refusal::Refusal;
use super::wire::{Stop, Wire};
use rustix::io::Errno;
use std::time::{Duration, Instant};

/// First bytes to make room for. The room grows with what has arrived and not with
/// what was announced: a client that sends nothing costs nothing.
const FIRST_STEP: usize = 2 * 1024;

/// Most bytes to make room for at once.
const MAX_STEP: usize = 64 * 1024;

/// Reads `rest` bytes of body and appends them to `out`, which already holds the
/// head and the part of the body that came with it. Takes not a byte more: what
/// follows is the next request.
pub(super) fn read(
    wire: &mut Wire<'_>,
    permit: &Permit,
    out: &mut Vec<u8>,
    mut rest: usize,
    patience: Duration,
) -> Result<(), Stop> {
    let until = Instant::now() + patience;
    while rest > 0 {
        let old = out.len();
        let step = rest.min(old.clamp(FIRST_STEP, MAX_STEP));
        out.resize(old + step, 0);
        permit.hold(out.capacity());
        let wait = until.saturating_duration_since(Instant::now());
        let result = wire.read_slice(&mut out[old..], wait);
        out.truncate(old + result.unwrap_or(0));
        match result {
            Ok(0) => return Err(Stop::Quiet),
            Ok(n) => rest -= n,
            Err(Errno::AGAIN) => return Err(Refusal::TOO_SLOW.into()),
            Err(_) => return Err(Stop::Quiet),
        }
    }
    Ok(())
}
