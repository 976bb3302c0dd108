//! Gets the source from an archive that its owner sends: `tar` in a sandbox, within the limits of
//! a repository.

use super::commit_size::shown;
use super::error::{FetchError, shortened};
use super::limits::FetchLimits;
use crate::disk::tree::Tree;
use crate::model::failed;
use crate::proc::{Cancel, Exit, Output};
use crate::sandbox::bwrap::{Purpose, Sandbox};
use crate::sandbox::host::Host;
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::time::Duration;

/// How long it may take until all of it is there: its sender may make it as it is sent.
const DEADLINE: Duration = Duration::from_secs(15 * 60);

/// Reads the archive from its input into the directory where it starts. What belongs to whom,
/// and when it was written, is as if Git had checked it out. With the number of its block before
/// each name it also says whether there was an end: without one it is content.
const TAR: &str = "tar --extract --file=- --verbose --block-number --no-same-owner \
                   --no-same-permissions --touch --warning=none";

/// How what it lists ends when the archive has an end.
const END: &[u8] = b" ** Block of NULs **\n";

/// What it says, behind the name that it says it of if there is one, and what that means.
const MEANINGS: [(&str, &str); 5] = [
    ("Archive is compressed", "the archive is compressed; send it plain, as `tar -c` makes it"),
    ("This does not look like a tar archive", "what was sent is no archive as `tar -c` makes it"),
    ("Unexpected EOF", BROKE_OFF),
    ("Removing leading", "the archive holds names that are absolute or lead out of it by `..`"),
    (": Cannot mknod", "the archive holds a device"),
];

const BROKE_OFF: &str =
    "the archive has no end: what makes it, or the connection, broke off; send it again";

/// How often a link is followed anew whose way was disturbed.
const TRIES: usize = 1000;

/// An archive, and where its content belongs.
pub struct Unpack<'a> {
    /// What runs `tar`.
    pub host: &'a Host,
    /// The app's own number.
    pub slot: u16,
    /// The new, empty release directory.
    pub release: &'a Path,
    /// What it may take.
    pub limits: FetchLimits,
}

impl Unpack<'_> {
    /// Unpacks what can be read from a descriptor, and looks at what has come of it.
    ///
    /// # Errors
    /// [`FetchError`]; a directory that is not empty then serves nobody.
    pub fn run(&self, archive: OwnedFd, cancel: &Cancel) -> Result<(), FetchError> {
        let sandbox = Sandbox::new(self.host, Purpose::Fetch, self.slot)
            .bind(self.release, "/app")
            .dir("/app")
            .file_size(self.limits.bytes)
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("LC_ALL", "C.UTF-8");
        let words: Vec<&str> = TAR.split(' ').collect();
        let exec = sandbox.prepare(&words).deadline(DEADLINE).stdin_file(archive);
        let (mut files, mut end) = (0, Vec::new());
        let mut take = |piece: &[u8]| {
            files += piece.iter().filter(|b| **b == b'\n').count() as u64;
            end.extend_from_slice(piece);
            end.drain(..end.len().saturating_sub(END.len()));
            files <= self.limits.files
        };
        let output = exec.pieces(&mut take, cancel)?;
        if output.exit == Exit::Cancelled {
            return Err(FetchError::Cancelled);
        }
        self.limits.check("archive", files, 0)?;
        if let Some(why) = self.why_refused(&output, end == END) {
            return Err(why.into());
        }
        let open = self.host.users.open_up(self.release, cancel);
        open.map_err(failed("what the archive has sealed could not be opened"))?;
        look(&Tree::open(self.release, "")?, self.limits, cancel)
    }

    /// Why it was not unpacked as it was sent, from what `tar` said.
    fn why_refused(&self, output: &Output, has_end: bool) -> Option<String> {
        let text = String::from_utf8_lossy(&output.stderr);
        let lines = || text.lines().map(|line| line.trim_start_matches("tar: "));
        let known = MEANINGS.iter().find_map(|(said, meaning)| {
            let (name, _) = lines().find_map(|line| line.split_once(said))?;
            let colon = if name.is_empty() { "" } else { ": " };
            Some(format!("{meaning}{colon}{}", shortened(name)))
        });
        Some(match (known, output.exit) {
            (Some(meaning), _) => meaning,
            (None, Exit::Code(0)) if has_end => return None,
            (None, Exit::Code(0)) => BROKE_OFF.to_owned(),
            (None, Exit::TimedOut) => {
                format!("the archive did not come whole in {} minutes", DEADLINE.as_secs() / 60)
            }
            (None, Exit::Code(153) | Exit::Signal(25)) => {
                format!("a file of the archive is larger than {}", self.limits.largest())
            }
            (None, exit) => {
                let why = lines().next().map_or_else(|| exit.to_string(), shortened);
                format!("the archive could not be unpacked: {why}")
            }
        })
    }
}

/// Refuses what no repository may hold, by the first that is found.
fn look(tree: &Tree, limits: FetchLimits, cancel: &Cancel) -> Result<(), FetchError> {
    let (mut files, mut bytes) = (0, 0_u64);
    tree.walk(&mut |path, stat| {
        if cancel.is_cancelled() {
            return Err(FetchError::Cancelled);
        }
        let what = match stat.map(|stat| (FileType::from_raw_mode(stat.st_mode), stat)) {
            Some((FileType::RegularFile, stat)) => {
                bytes = bytes.saturating_add(stat.st_size.unsigned_abs());
                None
            }
            Some((FileType::Directory, _)) => None,
            Some((FileType::Symlink, _)) if !leads_out(tree, path) => None,
            Some((FileType::Symlink, _)) => Some("a symbolic link that leads out of it"),
            Some(_) => Some("a named pipe, a socket or a device"),
            None => Some("what cannot be read"),
        };
        if let Some(what) = what {
            let name = shown(path.as_os_str().as_bytes());
            return Err(format!("the archive holds {what}: {name}").into());
        }
        files += 1;
        limits.check("archive", files, bytes)?;
        Ok(true)
    })
}

/// Whether the kernel leaves the tree when it follows a link, and those that it leads to. One that
/// leads nowhere does not.
fn leads_out(tree: &Tree, link: &Path) -> bool {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let follow = || openat2(&tree.top, link, flags, Mode::empty(), beneath).err();
    // It begins anew when something is renamed on this machine while it goes up by `..`.
    let mut tries = std::iter::repeat_with(follow).take(TRIES);
    tries.find(|failed| *failed != Some(Errno::AGAIN)).is_none_or(|f| f == Some(Errno::XDEV))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{CWD, mknodat};
    use std::fs;
    use std::os::unix::fs::symlink;

    const LIMITS: FetchLimits =
        FetchLimits { bytes: 1 << 20, files: 50, time: Duration::from_secs(1) };

    fn refused(release: &Path) -> Option<String> {
        let tree = Tree::open(release, "").unwrap();
        match look(&tree, LIMITS, &Cancel::new().unwrap()) {
            Ok(()) => None,
            Err(FetchError::Failed(why)) => Some(why.to_string()),
            Err(other) => panic!("{other:?}"),
        }
    }

    #[test]
    fn links_that_stay_inside_are_fine_whatever_they_lead_to() {
        let dir = tempfile::tempdir().unwrap();
        let release = dir.path();
        fs::create_dir_all(release.join("a/b")).unwrap();
        fs::write(release.join("a/file"), "x").unwrap();
        fs::hard_link(release.join("a/file"), release.join("a/b/hard")).unwrap();
        for (place, target) in [
            ("up", "a/../a/b"),
            ("a/b/top", "../.."),
            ("a/b/file", "../file"),
            ("nowhere", "there/is/none"),
            ("a/loop", "loop"),
            ("through", "a/b/top/a/file"),
        ] {
            symlink(target, release.join(place)).unwrap();
        }
        assert_eq!(refused(release), None);
    }

    #[test]
    fn the_first_that_no_repository_may_hold_is_named() {
        let link = |target: &str, place: &Path| symlink(target, place).unwrap();
        let make = |kind, place: &Path| mknodat(CWD, place, kind, Mode::RWXU, 0).unwrap();
        let sparse = |place: &Path| fs::File::create(place).unwrap().set_len(600 << 10).unwrap();
        let files = |place: &Path| {
            fs::create_dir(place).unwrap();
            (0..50).for_each(|n| fs::write(place.join(n.to_string()), "").unwrap());
        };
        let chain = |place: &Path| {
            fs::create_dir(place).unwrap();
            link("..", &place.join("up"));
            link("up/../..", &place.join("out"));
        };
        type Make<'a> = &'a dyn Fn(&Path);
        let cases: [(Make<'_>, &str); 8] = [
            (&|p| link("/etc", p), "a symbolic link that leads out of it: a/x"),
            (&|p| link("../../y", p), "a symbolic link that leads out of it: a/x"),
            (&|p| link("../a/../../y/z", p), "a symbolic link that leads out of it: a/x"),
            (&|p| chain(p), "a symbolic link that leads out of it: a/x/out"),
            (&|p| make(FileType::Fifo, p), "a named pipe, a socket or a device: a/x"),
            (&|p| make(FileType::Socket, p), "a named pipe, a socket or a device: a/x"),
            (&|p| files(p), "more than 50 files, for which the disk has inodes"),
            (
                &|p| (sparse(p), sparse(&p.with_extension("y"))).1,
                "larger than 1 MiB, for which the disk has room",
            ),
        ];
        for (make, sentence) in cases {
            let dir = tempfile::tempdir().unwrap();
            fs::create_dir(dir.path().join("a")).unwrap();
            make(&dir.path().join("a/x"));
            let why = refused(dir.path()).expect(sentence);
            assert!(why.ends_with(sentence), "{why}");
        }
    }

    #[test]
    fn a_look_ends_when_it_is_cancelled() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("file"), "").unwrap();
        let cancel = Cancel::new().unwrap();
        cancel.cancel();
        let looked = look(&Tree::open(dir.path(), "").unwrap(), LIMITS, &cancel);
        assert!(matches!(looked, Err(FetchError::Cancelled)));
    }
}
