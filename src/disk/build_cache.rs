//! Keeps what builds leave for the next ones within bounds.
//!
//! What one tool keeps stays or goes as a whole: most take a package for whole of which only
//! some files are still there, and no build of that app would ever end well again.

use super::removal::random_name;
use super::subuid::{GOING_THROUGH, run_as_owner};
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// How long what a tool keeps may lie untouched until it is the first to go. By times of
/// writing: reading leaves none on many disks (mount(8), noatime), and most tools keep notes or
/// locks of each use.
const UNTOUCHED: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Names that are put aside one by one: a build uses fewer tools.
const MOST_PARTS: usize = 20;

/// What is answered for the whole cache.
const ALL: &str = "all";

/// What a file takes of a disk at least, also an empty one: file systems have an inode for
/// every 16 KiB (mke2fs.conf(5)) or every 4 KiB where they are made for small files.
const LEAST_FILE: u64 = 4 << 10;

/// What a name takes of the disk, with all below it.
#[derive(Debug, Clone, Copy, Default)]
struct Taken {
    bytes: u64,
    /// When something of it was last written, in seconds since 1970.
    written: u64,
}

/// Gives up as much of a build cache as makes it no larger than `cap` bytes: first what was
/// untouched for a week, then what is largest. Answers the names.
///
/// # Errors
/// When something could not be put aside.
pub fn bound(cache: &Path, cap: u64) -> io::Result<Vec<String>> {
    if !cache.exists() {
        return Ok(Vec::new());
    }
    // What cannot be counted is too much.
    let Ok(mut parts) = taken(cache) else { return give_up(cache).map(|()| vec![ALL.into()]) };
    let mut left = parts.remove(cache).unwrap_or_default().bytes;
    let begin = SystemTime::now() - UNTOUCHED;
    let begin = begin.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let mut parts: Vec<_> = parts.into_iter().collect();
    parts.sort_by_key(|(_, part)| (part.written >= begin, Reverse(part.bytes)));
    let mut gone = Vec::new();
    for (at, (path, part)) in parts.into_iter().enumerate() {
        if left <= cap {
            break;
        }
        // Beside the cache, where it is removed from: in the cache, the app could be in the way.
        let aside = cache.with_file_name(random_name());
        let words = ["mv", "--no-target-directory", "--"].map(OsStr::new);
        let words = [&words[..], &[path.as_os_str(), aside.as_os_str()]].concat();
        if at >= MOST_PARTS || run_as_owner(&words, GOING_THROUGH).is_err() {
            give_up(cache)?;
            gone.push(ALL.to_owned());
            break;
        }
        left = left.saturating_sub(part.bytes);
        gone.extend(path.file_name().map(|name| name.to_string_lossy().into_owned()));
    }
    Ok(gone)
}

/// Puts a whole build cache aside, at once or not at all.
///
/// # Errors
/// When it could not be put aside.
pub fn give_up(cache: &Path) -> io::Result<()> {
    fs::rename(cache, cache.with_file_name(random_name()))
}

/// What a directory takes, under its own path, and what each name in it does.
fn taken(dir: &Path) -> io::Result<BTreeMap<PathBuf, Taken>> {
    let mut all = BTreeMap::<PathBuf, Taken>::new();
    for (unit, least) in [("--block-size=1", 1), ("--inodes", LEAST_FILE)] {
        let du = ["du", "--all", "--max-depth=1", "--one-file-system", "--null", "--time"];
        let words = [&du[..], &["--time-style=+%s", unit, "--"]].concat();
        let mut words: Vec<_> = words.into_iter().map(OsStr::new).collect();
        words.push(dir.as_os_str());
        for line in run_as_owner(&words, GOING_THROUGH)?.split_terminator('\0') {
            let mut fields = line.splitn(3, '\t');
            let mut field = || fields.next().ok_or(io::ErrorKind::InvalidData);
            let count: u64 = field()?.parse().map_err(io::Error::other)?;
            // One before 1970 has a sign.
            let written = field()?.parse().unwrap_or_default();
            let entry = all.entry(field()?.into()).or_default();
            *entry = Taken { bytes: entry.bytes.max(count.saturating_mul(least)), written };
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data_dir::DataDir;
    use crate::disk::layout::Layout;
    use crate::model::{AppId, DeployId};
    use crate::sandbox::host::Host;

    #[test]
    fn a_cache_gives_up_what_is_long_untouched_then_what_is_largest_then_all() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(DataDir::open(&dir.path().join("data")).unwrap());
        let host = Host::here(&layout.etc().unwrap());
        let app = AppId::parse("aaaaaaaaaa").unwrap();
        let deploy = DeployId::parse("bbbbbbbbbb").unwrap();
        layout.prepare(host.users, &app, 3, &deploy).unwrap();
        let cache = layout.cache(&app);
        let fill = "fill() { mkdir -p \"$1/x\"; head -c $2 /dev/zero >\"$1/x/file\"; }; \
                    fill npm 300000; fill 'go build' 200000; fill old 100000; fill small 50000; \
                    find old | xargs touch -d '10 days ago'; ln -s / link; chmod 0 npm";
        host.as_app(3, &cache, fill);
        let there = |name: &str| fs::symlink_metadata(cache.join(name)).is_ok();
        assert!(bound(&cache, 1_000_000).unwrap().is_empty() && there("old"));
        assert_eq!(bound(&cache, 630_000).unwrap(), ["old"]);
        assert_eq!(bound(&cache, 300_000).unwrap(), ["npm"]);
        assert!(there("go build") && there("small") && !there("npm") && !there("old"));
        layout.empty_trash(&|| true);
        let left = fs::read_dir(layout.persistent(&app).parent().unwrap()).unwrap().count();
        assert_eq!(left, 5, "cache, data, releases, repo and tmp");
        assert_eq!(bound(&cache, 0).unwrap()[..2], ["go build", "small"]);
        assert!(fs::symlink_metadata("/etc").is_ok() && layout.persistent(&app).exists());
        host.as_app(3, &cache, "seq 100 | xargs touch");
        assert_eq!(bound(&cache, 0).unwrap().last().unwrap(), "all", "too many names");
        assert!(bound(&cache, 0).unwrap().is_empty(), "it is not there");
    }

    #[test]
    fn what_a_directory_takes_is_known_for_each_name_in_it() {
        let dir = tempfile::tempdir().unwrap();
        let odd = dir.path().join("a\tb\n");
        fs::create_dir_all(odd.join("c")).unwrap();
        fs::write(odd.join("c/file"), vec![1; 100_000]).unwrap();
        let bytes = |path: &Path| taken(dir.path()).unwrap()[path].bytes;
        assert!((100_000..200_000).contains(&bytes(&odd)) && bytes(dir.path()) > 100_000);
        for number in 0..300 {
            fs::File::create(odd.join(format!("empty-{number}"))).unwrap();
        }
        assert!(bytes(&odd) > 1_000_000, "files take of a disk also when they are empty");
    }
}
