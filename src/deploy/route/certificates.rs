//! The files of Caddy's certificates: whether one of them is only just being written.
//!
//! Caddy reads them when it goes over to another configuration, and refuses that with one
//! that is half there. Caddy 2.6 does not recover from such a refusal: servers of the
//! refused configuration stay, and it can have listened for the last time.

use serde::de::IgnoredAny;
use std::fs;
use std::path::{Path, PathBuf};

/// Where Caddy keeps what it must not lose, in the router's directory.
#[must_use]
pub(super) fn storage(dir: &Path) -> PathBuf {
    dir.join("storage")
}

/// Whether every file of every certificate is whole. One that cannot be read counts as
/// whole: it is for Caddy to say what is wrong with it.
#[must_use]
pub(super) fn are_whole(dir: &Path) -> bool {
    let inside = |dirs: Vec<PathBuf>| -> Vec<PathBuf> {
        dirs.iter()
            .filter_map(|dir| fs::read_dir(dir).ok())
            .flatten()
            .flatten()
            .map(|e| e.path())
            .collect()
    };
    // Each has a directory of its own, in one of its issuer's.
    let files = inside(inside(inside(vec![storage(dir).join("certificates")])));
    files.iter().all(|file| fs::read(file).map_or(true, |text| is_whole(file, &text)))
}

fn is_whole(file: &Path, text: &[u8]) -> bool {
    match file.extension().and_then(|e| e.to_str()) {
        Some("json") => serde_json::from_slice::<IgnoredAny>(text).is_ok(),
        // PEM (RFC 7468): the last line says what has ended.
        Some("crt" | "key") => text.trim_ascii_end().ends_with(b"-----"),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_a_certificate_that_is_half_there_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        assert!(are_whole(dir.path()), "there are none");
        let place = dir.path().join("storage/certificates/local/shop.example.com");
        fs::create_dir_all(&place).unwrap();
        let pem = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        for (name, whole) in [("a.json", "{\"sans\": [\"a\"]}"), ("a.crt", pem), ("a.key", pem)] {
            let file = place.join(name);
            for end in [0, whole.len() / 2, whole.len() - 3] {
                fs::write(&file, &whole[..end]).unwrap();
                assert!(!are_whole(dir.path()), "{name}: {end} bytes");
            }
            fs::write(&file, whole).unwrap();
            assert!(are_whole(dir.path()), "{name}");
        }
        fs::write(place.join("a.lock"), "").unwrap();
        assert!(are_whole(dir.path()));
    }
}
