//! Looks at an app's Git cache: what a killed Git left in it, and how large it has grown.

use std::fs;
use std::path::Path;

/// Fetches into one cache before it is made anew: each leaves a pack, and Git's
/// own tidying is off because it would run at a moment of its choice.
pub(super) const PACKS: usize = 20;

/// Bytes that the packs may have beside twice the largest, which is most likely the one
/// that began the cache. A repository that changes little is then not fetched whole again
/// before there are [`PACKS`]; one that changes as a whole has four packs at most.
const GROWTH: u64 = 256 << 20;

/// Whether a killed Git left a lock or an unfinished file in the cache.
pub fn has_leftovers(cache: &Path) -> bool {
    [".", "refs/better-paas", "objects/pack"].iter().any(|below| {
        fs::read_dir(cache.join(below)).into_iter().flatten().flatten().any(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            name.ends_with(".lock")
                || ["tmp_", ".tmp-", "shallow_"].iter().any(|prefix| name.starts_with(prefix))
        })
    })
}

/// Bytes of each pack in the cache.
pub(super) fn packs(cache: &Path) -> Vec<u64> {
    let entries = fs::read_dir(cache.join("objects/pack")).into_iter().flatten().flatten();
    let packs = entries.filter(|e| e.path().extension().is_some_and(|x| x == "pack"));
    packs.map(|e| e.metadata().map_or(0, |meta| meta.len())).collect()
}

/// Whether these packs are too many or too large together.
pub(super) fn has_grown_large(packs: &[u64]) -> bool {
    let sum = packs.iter().fold(0, |sum: u64, bytes| sum.saturating_add(*bytes));
    let largest = packs.iter().max().copied().unwrap_or(0);
    packs.len() >= PACKS || sum > largest.saturating_mul(2).saturating_add(GROWTH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cache_is_bounded_by_its_packs_and_by_their_bytes() {
        const MIB: u64 = 1 << 20;
        assert!(!has_grown_large(&[]) && !has_grown_large(&[2048 * MIB]));
        assert!(!has_grown_large(&[1; PACKS - 1]) && has_grown_large(&[1; PACKS]));
        // Large, with small changes.
        assert!(!has_grown_large(&[[1024 * MIB].as_slice(), &[10 * MIB; 18]].concat()));
        // Changing as a whole.
        assert!(!has_grown_large(&[200 * MIB; 3]) && has_grown_large(&[200 * MIB; 4]));
    }
}
