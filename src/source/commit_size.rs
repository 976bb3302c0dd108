//! Looks at what a commit holds before anything of it is written to the disk.
//!
//! A few hundred bytes of Git objects can stand for billions of files, and one
//! small pack for terabytes, so the list is counted while it comes and broken off
//! at the first limit.

use super::error::shortened;
use super::limits::FetchLimits;

/// The longest path that is checked out: the kernel takes 4,095 bytes (`PATH_MAX`),
/// and Git silently leaves out what is longer.
const PATH_CAP: usize = 4000;

/// The longest part of a path; file systems take no more (`NAME_MAX`).
const NAME_CAP: usize = 255;

/// Bytes that a Git LFS pointer can have: by its specification less than 1024, and
/// not less than its first line, a SHA-256 and a size.
const POINTER: std::ops::RangeInclusive<u64> = 120..=1023;

/// Files that are looked into for such pointers.
const POINTERS: usize = 2000;

/// Submodules that are remembered; a sentence names one.
const SUBMODULES: usize = 4;

/// What a commit holds.
#[derive(Debug, Default)]
pub(super) struct Survey {
    /// Where submodules are, the first few.
    pub submodules: Vec<Vec<u8>>,
    /// Files that could be Git LFS pointers by their size.
    pub maybe_pointers: Vec<Vec<u8>>,
    files: u64,
    bytes: u64,
    held: Vec<u8>,
    /// Why the commit is refused, if it is.
    pub refused: Option<String>,
}

impl Survey {
    /// Takes a piece of `git ls-tree -r -l -z`; `false` once it has seen enough.
    pub(super) fn take(&mut self, piece: &[u8], limits: &FetchLimits) -> bool {
        for part in piece.split_inclusive(|b| *b == 0) {
            self.held.extend_from_slice(part);
            if self.held.last() == Some(&0) {
                let entry = std::mem::take(&mut self.held);
                if let Err(why) = self.entry(&entry[..entry.len() - 1], limits) {
                    self.refused = Some(why);
                    return false;
                }
            } else if self.held.len() > 2 * PATH_CAP {
                self.refused = Some(too_long(&self.held));
                return false;
            }
        }
        true
    }

    /// One entry: `<mode> <type> <hash> <size, right-aligned>\t<path>`; the size of a
    /// submodule is a dash.
    fn entry(&mut self, entry: &[u8], limits: &FetchLimits) -> Result<(), String> {
        let Some(tab) = entry.iter().position(|b| *b == b'\t') else {
            return Err("Git listed the commit in a form that is not known".into());
        };
        let (about, path) = (&entry[..tab], &entry[tab + 1..]);
        if path.len() > PATH_CAP || path.split(|b| *b == b'/').any(|part| part.len() > NAME_CAP) {
            return Err(too_long(path));
        }
        if about.starts_with(b"160000 ") {
            if self.submodules.len() < SUBMODULES {
                self.submodules.push(path.to_vec());
            }
            return Ok(());
        }
        let size = about.rsplit(|b| *b == b' ').next().unwrap_or_default();
        let size = std::str::from_utf8(size).ok().and_then(|s| s.parse::<u64>().ok());
        let size = size.unwrap_or(u64::MAX);
        self.files += 1;
        self.bytes = self.bytes.saturating_add(size);
        limits.check("commit", self.files, self.bytes)?;
        let is_file = about.starts_with(b"100");
        if is_file && POINTER.contains(&size) && self.maybe_pointers.len() < POINTERS {
            self.maybe_pointers.push(path.to_vec());
        }
        Ok(())
    }
}

fn too_long(path: &[u8]) -> String {
    format!(
        "the commit holds a path that is too long for a file system (a path may have {PATH_CAP} \
         bytes, each part of it {NAME_CAP}): {}",
        shown(path)
    )
}

/// A path as it may stand in a sentence: one line, not long, no control characters.
pub(super) fn shown(path: &[u8]) -> String {
    shortened(&String::from_utf8_lossy(path))
}

/// Whether a file's text is a Git LFS pointer.
pub(super) fn is_pointer(text: &str) -> bool {
    text.starts_with("version https://git-lfs.github.com/spec/") && text.contains("\noid sha256:")
}

/// Whether a path is the directory or lies in it, or the other way around. The whole
/// repository, an empty name, contains everything.
pub(super) fn overlap(path: &[u8], root: &str) -> bool {
    let root = root.trim_end_matches('/').as_bytes();
    let within = |inner: &[u8], outer: &[u8]| {
        inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
    };
    root.is_empty() || within(path, root) || within(root, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: FetchLimits =
        FetchLimits { bytes: 10_000, files: 5, time: std::time::Duration::from_secs(1) };

    fn entry(mode: &str, size: &str, path: &str) -> String {
        let kind = if mode == "160000" { "commit" } else { "blob" };
        format!("{mode} {kind} {:040} {size:>7}\t{path}\0", 7)
    }

    fn survey(text: &str, piece: usize) -> Survey {
        let mut survey = Survey::default();
        for piece in text.as_bytes().chunks(piece) {
            if !survey.take(piece, &LIMITS) {
                break;
            }
        }
        survey
    }

    #[test]
    fn files_are_counted_however_the_list_is_cut() {
        let text = entry("100644", "12", "a\tb\nc")
            + &entry("160000", "-", "vendor/lib")
            + &entry("100755", "130", "logo.png")
            + &entry("120000", "130", "link");
        for piece in [1, 7, 1000] {
            let survey = survey(&text, piece);
            assert_eq!((survey.files, survey.bytes), (3, 272));
            assert_eq!(survey.submodules, [b"vendor/lib"]);
            assert_eq!(survey.maybe_pointers, [b"logo.png"]);
            assert_eq!(survey.refused, None);
        }
    }

    #[test]
    fn the_first_limit_ends_it() {
        let refused = |text: &str| survey(text, 100).refused.unwrap_or_default();
        assert!(refused(&entry("100644", "1", "x").repeat(6)).contains("more than 5 files"));
        assert!(refused(&entry("100644", "10001", "x")).contains("larger than"));
        let long = format!("{}f", "d/".repeat(2100));
        assert!(refused(&entry("100644", "1", &long)).contains("too long"));
        assert!(refused(&entry("100644", "1", &"n".repeat(256))).contains("too long"));
        assert!(refused(&"x".repeat(9000)).contains("too long"));
        assert!(refused("nonsense\0").contains("not known"));
        assert!(refused(&entry("100644", "BAD", "x")).contains("larger than"));
    }

    #[test]
    fn a_submodule_matters_where_the_app_is() {
        for (path, root, matters) in [
            ("lib", "", true),
            ("web/lib", "web", true),
            ("web", "web", true),
            ("vendor", "vendor/site", true),
            ("website", "web", false),
            ("docs/theme", "web", false),
        ] {
            assert_eq!(overlap(path.as_bytes(), root), matters, "{path} {root}");
        }
    }
}
