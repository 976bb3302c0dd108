//! The files that every sandbox gets instead of the machine's own: who lives here, the
//! filter of system calls, and the program that comes first.
//!
//! Sandboxes start at any moment, so a file is replaced whole or not at all, and only
//! when there is something new in it.

use super::seccomp;
use crate::data_dir::replace_filled;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// The file with the filter.
const FILTER: &str = "seccomp";

/// The program that comes first, which is this one.
const PROGRAM: &str = "init";

/// Its mode: every app's user runs it.
const PROGRAM_MODE: u32 = 0o755;

/// Its mode: the server opens it for every sandbox.
const OURS: u32 = 0o600;

/// The mode of what an app reads itself.
const FOR_ALL: u32 = 0o644;

/// What each uid has a file of, by the names in `/etc`.
const OF_UID: [&str; 3] = ["passwd", "group", "hosts"];

/// What programs need of the machine's own `/etc`, and what those in `/usr` link into or look
/// for there; a `*` stands for the rest of a name. Nothing in it is secret or says who lives here.
///
/// It is a list since the links alone say too much and too little: they lead to
/// `/etc/environment`, where the password of a proxy may be, and not to fonts and PHP, whose
/// paths are compiled in. PHP's are named one by one: its `pool.d` has passwords of websites.
const MACHINES: [&str; 40] = [
    "resolv.conf",
    "host.conf",
    "nsswitch.conf",
    "gai.conf",
    "protocols",
    "services",
    "ssl/certs",
    "ssl/cert.pem",
    "ssl/openssl.cnf",
    "ca-certificates",
    "ca-certificates.conf",
    "pki/tls",
    "pki/ca-trust",
    "crypto-policies",
    "localtime",
    "timezone",
    "os-release",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "alternatives",
    "mime.types",
    "pip.conf",
    "npmrc",
    "java*",
    "maven",
    "php/*/mods-available",
    "php/*/cli",
    "php/*/cgi",
    "php/*/fpm/php.ini",
    "php/*/fpm/conf.d",
    "R",
    "dotnet",
    "mono",
    "odbcinst.ini",
    "fonts",
    "ImageMagick*",
    "ghostscript",
    "libreoffice",
    "texmf",
];

/// The directory with these files.
#[derive(Debug, Clone)]
pub struct EtcFiles {
    directory: PathBuf,
}

impl EtcFiles {
    /// The files in this directory.
    #[must_use]
    pub fn new(directory: &Path) -> Self {
        Self { directory: directory.to_owned() }
    }

    /// The files and directories of the machine's own that a sandbox sees.
    pub fn of_machine() -> impl Iterator<Item = PathBuf> {
        seen_of(Path::new("/etc"))
    }

    /// The file with the filter of system calls.
    #[must_use]
    pub fn filter(&self) -> PathBuf {
        self.directory.join(FILTER)
    }

    /// Writes that file, unless it is there.
    ///
    /// # Errors
    /// The sentence that says why it could not be written.
    pub fn keep_filter(&self) -> Result<(), String> {
        let kept = self.keep(FILTER, &seccomp::filter(), OURS);
        kept.map_err(|e| format!("could not write {}: {e}", self.filter().display()))
    }

    /// The program that comes first in every sandbox.
    #[must_use]
    pub fn program(&self) -> PathBuf {
        self.directory.join(PROGRAM)
    }

    /// Puts that program there, a copy: this one as it runs, whatever becomes of its file,
    /// and no matter which users may read that.
    ///
    /// # Errors
    /// The sentence that says why it could not be put there.
    pub fn put_program(&self, source: &Path) -> Result<(), String> {
        // Also when the disk is full: then the one from before is needed.
        if is_same(source, &self.program()).unwrap_or(false) {
            return Ok(());
        }
        let fill = |file: &mut File| io::copy(&mut File::open(source)?, file).map(drop);
        let put = replace_filled(&self.program(), PROGRAM_MODE, fill);
        put.map_err(|e| format!("could not write {}: {e}", self.program().display()))
    }

    /// The files that stand in for `/etc/passwd`, `/etc/group` and `/etc/hosts`,
    /// made when they are not there: with who lives on this machine left out, and
    /// with the sandbox's host name, which many programs look up.
    #[must_use]
    pub fn make_accounts(&self, uid: u32) -> Vec<(PathBuf, &'static str)> {
        let hosts = fs::read_to_string("/etc/hosts").unwrap_or_default();
        let passwd = format!(
            "root:x:0:0:root:/:/usr/sbin/nologin\n\
             app:x:{uid}:{uid}:app:/tmp:/bin/sh\n\
             nobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n"
        );
        let group = format!("root:x:0:\napp:x:{uid}:\nnogroup:x:65534:\n");
        let hosts = format!("{}\n127.0.0.1 app\n", hosts.trim_end());
        let mut found = Vec::new();
        for (name, text) in OF_UID.into_iter().zip([passwd, group, hosts]) {
            let file = format!("{name}-{uid}");
            match self.keep(&file, text.as_bytes(), FOR_ALL) {
                Ok(()) => found.push((self.directory.join(file), name)),
                Err(error) => log::warn!("could not write {file} for sandboxes: {error}"),
            }
        }
        found
    }

    /// The uids that have such files.
    #[must_use]
    pub fn uids(&self) -> Vec<u32> {
        let entries = fs::read_dir(&self.directory).into_iter().flatten().flatten();
        let uid = |name: &str| name.strip_prefix(OF_UID[0])?.strip_prefix('-')?.parse().ok();
        entries.filter_map(|entry| uid(entry.file_name().to_str()?)).collect()
    }

    /// Removes a uid's files: its app is gone.
    pub fn forget(&self, uid: u32) {
        for name in OF_UID {
            // One that stays is replaced by the next app with this uid.
            let _ = fs::remove_file(self.directory.join(format!("{name}-{uid}")));
        }
    }

    /// Makes a file have this content. A running sandbox keeps the file that it has.
    fn keep(&self, name: &str, content: &[u8], mode: u32) -> io::Result<()> {
        if fs::read(self.directory.join(name)).is_ok_and(|now| now == content) {
            return Ok(());
        }
        replace_filled(&self.directory.join(name), mode, |file| file.write_all(content))
    }
}

/// Whether two files hold the same.
fn is_same(one: &Path, other: &Path) -> io::Result<bool> {
    let [one, other] = [File::open(one)?, File::open(other)?];
    if one.metadata()?.len() != other.metadata()?.len() {
        return Ok(false);
    }
    let [mut one, mut other] = [one, other].map(BufReader::new);
    loop {
        let (left, right) = (one.fill_buf()?, other.fill_buf()?);
        let length = left.len().min(right.len());
        if length == 0 || left[..length] != right[..length] {
            return Ok(left.is_empty() && right.is_empty());
        }
        one.consume(length);
        other.consume(length);
    }
}

/// What a sandbox sees of this directory.
fn seen_of(etc: &Path) -> impl Iterator<Item = PathBuf> {
    let all = MACHINES.iter().flat_map(move |pattern| matching(etc, pattern));
    all.filter(|path| is_for_everybody(path))
}

/// What a pattern of [`MACHINES`] may mean below a directory.
fn matching(directory: &Path, pattern: &str) -> Vec<PathBuf> {
    let (part, rest) = pattern.split_once('/').unwrap_or((pattern, ""));
    let here = match part.strip_suffix('*') {
        None => vec![directory.join(part)],
        Some(start) => {
            let entries = fs::read_dir(directory).into_iter().flatten().flatten();
            let named = |name: &OsStr| name.to_str().is_some_and(|name| name.starts_with(start));
            entries.filter(|e| named(&e.file_name())).map(|e| e.path()).collect()
        }
    };
    match rest {
        "" => here,
        rest => here.iter().flat_map(|path| matching(path, rest)).collect(),
    }
}

/// Whether it is there and every user of the machine may read it; what only some
/// may read is none of an app's business.
fn is_for_everybody(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|meta| {
        let needed = if meta.is_dir() { 0o005 } else { 0o004 };
        meta.permissions().mode() & needed == needed
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::Permissions;
    use std::os::unix::fs::MetadataExt as _;

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn of_the_machines_own_only_what_is_named_and_for_everybody_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let make = |name: &str, mode: u32| {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            for above in path.ancestors().skip(1).take_while(|above| *above != dir.path()) {
                fs::set_permissions(above, Permissions::from_mode(0o755)).unwrap();
            }
            fs::write(&path, "").unwrap();
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        };
        for name in ["environment", "shadow", "maven-key", "java-17-openjdk/security/java.security"]
        {
            make(name, 0o644);
        }
        for of in ["cli/php.ini", "cli/conf.d/10-pdo.ini", "fpm/php.ini", "fpm/pool.d/shop.conf"] {
            make(&format!("php/8.2/{of}"), 0o644);
        }
        make("fonts/fonts.conf", 0o644);
        make("npmrc", 0o640);
        make("maven/settings.xml", 0o644);
        fs::set_permissions(dir.path().join("maven"), Permissions::from_mode(0o750)).unwrap();
        let mut seen: Vec<_> = seen_of(dir.path())
            .map(|path| path.strip_prefix(dir.path()).unwrap().display().to_string())
            .collect();
        seen.sort();
        assert_eq!(seen, ["fonts", "java-17-openjdk", "php/8.2/cli", "php/8.2/fpm/php.ini"]);
    }

    #[test]
    fn a_file_that_is_right_is_left_alone_and_a_wrong_one_replaced_whole() {
        let dir = tempfile::tempdir().unwrap();
        let etc = EtcFiles::new(dir.path());
        etc.keep_filter().unwrap();
        let open = fs::File::open(etc.filter()).unwrap();
        let inode = || fs::metadata(etc.filter()).unwrap().ino();
        let first = inode();
        etc.keep_filter().unwrap();
        assert_eq!(inode(), first, "nothing new");
        fs::remove_file(etc.filter()).unwrap();
        fs::write(etc.filter(), "of an older server").unwrap();
        let older = fs::File::open(etc.filter()).unwrap();
        etc.keep_filter().unwrap();
        assert_eq!(fs::read(etc.filter()).unwrap(), seccomp::filter());
        assert_eq!(older.metadata().unwrap().len(), 18, "who has it open reads what was in it");
        assert!(open.metadata().unwrap().len() > 18);
        assert_eq!(names(dir.path()), [FILTER]);
    }

    #[test]
    fn sandboxes_that_start_at_once_all_find_their_files() {
        let dir = tempfile::tempdir().unwrap();
        let etc = EtcFiles::new(dir.path());
        std::thread::scope(|scope| {
            let all: Vec<_> =
                (0..8).map(|_| scope.spawn(|| etc.make_accounts(1007).len())).collect();
            assert!(all.into_iter().all(|one| one.join().unwrap() == 3));
        });
        assert_eq!(etc.make_accounts(1008).len(), 3);
        let mut uids = etc.uids();
        uids.sort_unstable();
        assert_eq!(uids, [1007, 1008]);
        etc.forget(1007);
        assert_eq!(names(dir.path()), ["group-1008", "hosts-1008", "passwd-1008"]);
    }
}
