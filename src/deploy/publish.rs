//! Publishes a static site: copies what the router may serve out of a release.
//!
//! A repository is not ours. The router follows links and would serve whatever
//! they lead to, so it never sees the release itself: it gets a copy with regular files
//! and directories alone, none of them hidden, which nobody else can write to.

use super::error::DeployFailure;
use crate::data_dir::gone_is_fine;
use crate::disk::tree::Tree;
use crate::model::{AnyError, failed};
use crate::proc::Exec;
use crate::router::{GZIP, OURS, RULES, SINGLE_PAGE, SiteRules};
use rustix::fs::FileType;
use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

/// Bytes that a site may have, for disk is shared by all apps; ten times a large one.
const MOST_BYTES: u64 = 1 << 30;
/// Files and directories that it may have, for the same reason.
const MOST_FILES: usize = 100_000;
/// Bytes of a path inside it; the system's limit is four times this.
const LONGEST_PATH: usize = 1000;
/// The one hidden name that is meant for everybody (RFC 8615).
const WELL_KNOWN: &[u8] = b".well-known";
/// Bytes of a file that are copied before it is asked whether to go on: a moment's work.
const PIECE: u64 = 8 << 20;
/// Types whose files get a compressed one beside them. Pages do not: they are small, and mostly
/// asked for by another path.
const COMPRESSED: [&str; 7] = ["css", "js", "json", "mjs", "svg", "txt", "wasm"];
/// Bytes of a file that are too few for that: the router compresses it in a quarter of a
/// millisecond.
const LEAST_COMPRESSED: u64 = 16 << 10;
/// How long one file may take to be compressed, and all of them together; what would take longer
/// the router compresses for each visitor.
const COMPRESSING: Duration = Duration::from_secs(5);
const COMPRESSING_ALL: Duration = Duration::from_secs(60);
/// Names that are listed before they are only counted.
const NAMED: usize = 5;

/// What was published, and what was not.
#[derive(Debug, Default)]
pub struct Published {
    /// Regular files.
    pub files: usize,
    /// What is not published: how much that is, and the first few names.
    left_out: usize,
    named: Vec<String>,
}

impl Published {
    fn leave_out(&mut self, path: &Path) {
        self.left_out += 1;
        if self.named.len() < NAMED {
            let name = path.to_string_lossy();
            self.named.push(name.chars().filter(|c| !c.is_control()).collect());
        }
    }

    /// The sentence for what was left out; nothing when that is nothing.
    pub fn warning(&self) -> Option<String> {
        let rest = self.left_out - self.named.len();
        let rest = if rest > 0 { format!(" and {rest} more") } else { String::new() };
        (self.left_out > 0).then(|| {
            format!(
                "Left out: {}{rest}. Links, special files and what cannot be read are not \
                 published; put a copy of the file there",
                self.named.join(", ")
            )
        })
    }
}

/// Copies a tree to a directory that is not there yet, with at most `room` bytes.
///
/// # Errors
/// [`DeployFailure`]; what was copied by then is left for the caller to remove.
pub fn publish(
    tree: &Tree,
    to: &Path,
    room: u64,
    go_on: &dyn Fn() -> bool,
) -> Result<Published, DeployFailure> {
    let most = MOST_BYTES.min(room);
    let mut published = Published::default();
    let (mut bytes, mut count) = (0, 0);
    let mut compress_until = Instant::now() + COMPRESSING_ALL;
    tree.walk(&mut |path, stat| {
        if !go_on() {
            return Err(DeployFailure::Cancelled);
        }
        if is_hidden(path) {
            return Ok(false);
        }
        count += 1;
        if count > MOST_FILES || path.as_os_str().len() > LONGEST_PATH {
            let sentence =
                format!("a site may have {MOST_FILES} files with paths of {LONGEST_PATH} bytes");
            return Err(sentence.into());
        }
        let place = to.join(path);
        let file = match stat.map(|stat| FileType::from_raw_mode(stat.st_mode)) {
            Some(FileType::Directory) => {
                DirBuilder::new().mode(0o700).create(place).map_err(no_copy)?;
                return Ok(true);
            }
            Some(FileType::RegularFile) => tree.file(path),
            _ => None,
        };
        let Some(file) = file else {
            published.leave_out(path);
            return Ok(false);
        };
        let size = copy(file, &place, (bytes, most), go_on)?;
        bytes += size;
        published.files += 1;
        // Never at the cost of what is still to be copied.
        if bytes < most / 2
            && Instant::now() < compress_until
            && let Err(error) = compress(to, path, size)
        {
            log::warn!("the files of a site are not compressed: {error}");
            compress_until = Instant::now();
        }
        Ok(false)
    })?;
    // A deploy that is noted as live has its files also after a power cut.
    let top = File::open(to).map_err(no_copy)?;
    rustix::fs::syncfs(&top).map_err(|e| no_copy(e.into()))?;
    Ok(published)
}

/// Turns what a published site says about its paths into what the router goes by; the answer
/// is for the log. `single_page` is whether the page at the top shows other paths, too, as far
/// as others than the site itself say; a page of its own for what is not there says no.
///
/// # Errors
/// The sentence for a rule that is refused, or a file that cannot be written.
pub fn apply_rules(site: &Path, single_page: bool) -> Result<Vec<String>, AnyError> {
    let read = |name: &str| fs::read_to_string(site.join(name)).unwrap_or_default();
    let (rules, mut notes) = SiteRules::read(&read("_redirects"), &read("_headers"))?;
    let single_page = rules.single_page || single_page && !site.join("404.html").exists();
    let write = || -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(site.join(OURS))?;
        if single_page {
            File::create(site.join(OURS).join(SINGLE_PAGE))?;
        }
        if !rules.is_empty() {
            fs::write(site.join(OURS).join(RULES), serde_json::to_vec(&rules)?)?;
        }
        for name in ["_redirects", "_headers"] {
            gone_is_fine(fs::remove_file(site.join(name)))?;
        }
        Ok(())
    };
    write().map_err(failed("the site's rules could not be written"))?;
    if single_page {
        notes.push("Other paths show the page at the top (single-page app).".to_owned());
    }
    if !rules.is_empty() {
        let count = rules.before.len() + rules.after.len();
        notes.push(format!("{count} rules of _redirects and _headers hold."));
    }
    Ok(notes)
}

fn is_hidden(path: &Path) -> bool {
    let name = path.file_name().map(OsStr::as_bytes).unwrap_or_default();
    name.starts_with(b".") && name != WELL_KNOWN
}

fn no_copy(error: io::Error) -> DeployFailure {
    failed("the site could not be copied")(error).into()
}

/// What the owner of a site hears that may have so many bytes.
fn too_large(most: u64) -> String {
    if most < MOST_BYTES {
        format!("the site needs more than the {} MiB of disk that are left", most >> 20)
    } else {
        format!("a site may have {} MiB at most", MOST_BYTES >> 20)
    }
}

/// Copies a file piece by piece, for a large one takes its time. `before` it there were so many
/// bytes of the `most`. Answers how many it has.
fn copy(
    mut from: File,
    to: &Path,
    (before, most): (u64, u64),
    go_on: &dyn Fn() -> bool,
) -> Result<u64, DeployFailure> {
    let to = OpenOptions::new().write(true).create_new(true).mode(0o600).open(to);
    let mut to = to.map_err(no_copy)?;
    let mut copied = 0;
    loop {
        let part = io::copy(&mut Read::by_ref(&mut from).take(PIECE), &mut to).map_err(no_copy)?;
        copied += part;
        if before + copied > most {
            return Err(too_large(most).into());
        }
        if part < PIECE {
            return Ok(copied);
        }
        if !go_on() {
            return Err(DeployFailure::Cancelled);
        }
    }
}

/// Compresses a file of so many bytes, if that is worth it, to where the router looks for it. It
/// is our own copy, which nobody else can exchange.
fn compress(site: &Path, file: &Path, size: u64) -> io::Result<()> {
    let extension = file.extension().and_then(OsStr::to_str).unwrap_or_default();
    if size < LEAST_COMPRESSED || !COMPRESSED.contains(&extension) {
        return Ok(());
    }
    // Behind what serves visitors.
    let exec = Exec::new("nice").args(["gzip", "--best", "--no-name", "--stdout", "--"]);
    let output = exec.arg(site.join(file)).deadline(COMPRESSING).run().map_err(io::Error::other)?;
    let packed = output.stdout;
    // One that took too long or is too much for memory is not whole.
    if !output.exit.is_success() || packed.len() as u64 > size / 10 * 9 {
        return Ok(());
    }
    let to = site.join(OURS).join(GZIP).join(file);
    let dir = DirBuilder::new().recursive(true).mode(0o700).create(to.parent().unwrap_or(site));
    let written = dir.and_then(|()| fs::write(&to, packed));
    if written.is_err() {
        let _ = fs::remove_file(&to);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn only_plain_files_that_are_not_hidden_get_out() {
        let dir = tempfile::tempdir().unwrap();
        let (release, to) = (dir.path().join("release"), dir.path().join("to"));
        fs::write(dir.path().join("secret"), "secret").unwrap();
        fs::create_dir_all(release.join("web/deep/er")).unwrap();
        fs::create_dir_all(release.join("web/.well-known")).unwrap();
        fs::create_dir_all(release.join("web/.git")).unwrap();
        for (name, text) in [
            ("index.html", "hello"),
            ("deep/er/a b.css", "x"),
            (".well-known/security.txt", "y"),
            (".env", "SECRET=1"),
            (".git/config", "z"),
        ] {
            fs::write(release.join("web").join(name), text).unwrap();
        }
        fs::set_permissions(release.join("web/index.html"), PermissionsExt::from_mode(0o777))
            .unwrap();
        symlink("../../secret", release.join("web/link.txt")).unwrap();
        symlink("../..", release.join("web/up")).unwrap();
        symlink("index.html", release.join("web/inside.html")).unwrap();
        let pipe = release.join("web/pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, FileType::Fifo, rustix::fs::Mode::RWXU, 0)
            .unwrap();

        let tree = Tree::open(&release, "web").unwrap();
        let published = publish(&tree, &to, u64::MAX, &|| true).unwrap();
        assert_eq!(published.files, 3);
        assert_eq!(fs::read_to_string(to.join("deep/er/a b.css")).unwrap(), "x");
        assert!(to.join(".well-known/security.txt").exists());
        for out in [".env", ".git", "link.txt", "up", "inside.html", "pipe"] {
            assert!(fs::symlink_metadata(to.join(out)).is_err(), "{out}");
        }
        let warning = published.warning().unwrap();
        for name in ["link.txt", "up", "inside.html", "pipe"] {
            assert!(warning.contains(name), "{warning}");
        }
        let mode = |path: &str| fs::metadata(to.join(path)).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode("index.html"), mode("deep")), (0o600, 0o700));
    }

    #[test]
    fn what_gets_smaller_by_it_is_compressed_too() {
        let dir = tempfile::tempdir().unwrap();
        let (release, to) = (dir.path().join("release"), dir.path().join("to"));
        fs::create_dir_all(release.join("assets")).unwrap();
        let mut noise = vec![0; 20_000];
        getrandom::fill(&mut noise).unwrap();
        let text = b"hello ".repeat(4000);
        for (name, bytes) in [
            ("assets/-a b.js", &text[..]),
            ("few.js", &text[..1000]),
            ("noise.wasm", &noise),
            ("page.html", &text),
            ("photo.jpg", &text),
        ] {
            fs::write(release.join(name), bytes).unwrap();
        }
        let tree = Tree::open(&release, "").unwrap();
        assert_eq!(publish(&tree, &to, u64::MAX, &|| true).unwrap().files, 5);
        let ours = to.join(OURS).join(GZIP);
        let there = |name: &str| fs::read(ours.join(name)).ok();
        assert!(there("assets/-a b.js").unwrap().starts_with(&[0x1f, 0x8b]));
        for none in ["few.js", "noise.wasm", "page.html", "photo.jpg"] {
            assert_eq!(there(none), None, "{none}");
        }
        assert_eq!(fs::read(to.join("assets/-a b.js")).unwrap(), text, "it stays");
    }

    #[test]
    fn what_is_left_out_is_counted_and_five_names_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let release = dir.path().join("release");
        fs::create_dir(&release).unwrap();
        for number in 0..1000 {
            symlink("/", release.join(format!("link-{number}"))).unwrap();
        }
        let tree = Tree::open(&release, "").unwrap();
        let published = publish(&tree, &dir.path().join("to"), u64::MAX, &|| true).unwrap();
        assert_eq!((published.left_out, published.named.len()), (1000, NAMED));
        let warning = published.warning().unwrap();
        assert!(warning.contains(" and 995 more. Links"), "{warning}");
    }

    #[test]
    fn directories_with_more_names_than_memory_is_for_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let release = dir.path().join("release");
        let long = format!("{0}/{0}/{0}", "d".repeat(250));
        fs::create_dir_all(release.join(&long)).unwrap();
        (0..12_000).for_each(|n| fs::create_dir(release.join(format!("{long}/{n}"))).unwrap());
        let tree = Tree::open(&release, "").unwrap();
        let refused = publish(&tree, &dir.path().join("to"), u64::MAX, &|| true).unwrap_err();
        let sentence = "there are too many directories with long names";
        assert_eq!(refused, DeployFailure::from(sentence));
    }

    #[test]
    fn a_site_that_is_too_large_or_cancelled_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let release = dir.path().join("release");
        fs::create_dir(&release).unwrap();
        let huge = File::create(release.join("index.html")).unwrap();
        let tree = Tree::open(&release, "").unwrap();
        let refused = |to: &str, room, go_on: &dyn Fn() -> bool| {
            publish(&tree, &dir.path().join(to), room, go_on).unwrap_err()
        };
        assert_eq!(refused("a", u64::MAX, &|| false), DeployFailure::Cancelled);
        // Nothing but its length is there.
        huge.set_len(MOST_BYTES + 1).unwrap();
        let little = "the site needs more than the 3 MiB of disk that are left";
        assert_eq!(refused("b", 3 << 20, &|| true), DeployFailure::from(little));
        assert_eq!(too_large(MOST_BYTES), "a site may have 1024 MiB at most");
        let asked = std::cell::Cell::new(0);
        let twice = || asked.replace(asked.get() + 1) < 2;
        assert_eq!(refused("c", u64::MAX, &twice), DeployFailure::Cancelled, "within one file");
        assert!(dir.path().join("c/index.html").metadata().unwrap().len() <= PIECE);
    }
}
