//! What a sandbox has of the machine's own `/etc`, and the two files of ours that each one needs:
//! the filter of system calls, and the program that comes first.
//!
//! Sandboxes start at any moment, so a file is replaced whole or not at all, and only
//! when there is something new in it.

use super::seccomp;
use crate::data_dir::replace_filled;
use crate::disk::shared_files::is_same;
use crate::model::{AnyError, failed};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// The mode of the program that comes first: every app's user runs it.
const PROGRAM_MODE: u32 = 0o755;

/// The mode of the filter: the server opens it for every sandbox.
const FILTER_MODE: u32 = 0o600;

/// What programs need of the machine's own `/etc`, and what those in `/usr` link into or look
/// for there, by subject: the network, trust, the system, languages, documents; a `*` stands for
/// the rest of a name. Nothing in it is secret or says who lives here.
///
/// It is a list since the links alone say too much and too little: they lead to
/// `/etc/environment`, where the password of a proxy may be, and not to fonts and PHP, whose
/// paths are compiled in. PHP's are named one by one: its `pool.d` has passwords of websites.
const MACHINES: &str = "
    hosts resolv.conf host.conf nsswitch.conf gai.conf protocols services
    ssl/certs ssl/cert.pem ssl/openssl.cnf ca-certificates ca-certificates.conf
    pki/tls pki/ca-trust crypto-policies
    localtime timezone os-release ld.so.cache ld.so.conf ld.so.conf.d alternatives mime.types
    pip.conf npmrc java* maven R dotnet mono odbcinst.ini
    php/*/mods-available php/*/cli php/*/cgi php/*/fpm/php.ini php/*/fpm/conf.d
    fonts ImageMagick* ghostscript libreoffice texmf
";

/// The files that each sandbox needs.
#[derive(Debug, Clone)]
pub struct EtcFiles {
    /// The filter of system calls, as bubblewrap reads it.
    pub filter: PathBuf,
    /// The program that comes first.
    pub program: PathBuf,
}

impl EtcFiles {
    /// Makes them in this directory, unless they are there. The program is a copy of `source`,
    /// which is this one as it runs, whatever becomes of its file, and no matter which users
    /// may read that.
    ///
    /// # Errors
    /// The sentence that says which could not be written.
    pub fn make(directory: &Path, source: &Path) -> Result<Self, AnyError> {
        let [filter, program] = ["seccomp", "init"].map(|name| directory.join(name));
        let put = |path: &Path, mode, fill: &dyn Fn(&mut File) -> io::Result<()>| {
            let put = replace_filled(path, mode, fill);
            put.map_err(failed(format!("could not write {}", path.display())))
        };
        let calls = seccomp::filter();
        if fs::read(&filter).ok().as_ref() != Some(&calls) {
            put(&filter, FILTER_MODE, &|file| file.write_all(&calls))?;
        }
        // Also when the disk is full: then the one from before is needed.
        let there =
            File::open(source).and_then(|mut own| is_same(&mut own, &mut File::open(&program)?));
        if !there.unwrap_or(false) {
            put(&program, PROGRAM_MODE, &|file| {
                io::copy(&mut File::open(source)?, file).map(drop)
            })?;
        }
        Ok(Self { filter, program })
    }
}

/// The files and directories that a sandbox sees of the machine's `/etc`.
pub fn seen_of(etc: &Path) -> impl Iterator<Item = PathBuf> {
    let all = MACHINES.split_ascii_whitespace().flat_map(move |pattern| matching(etc, pattern));
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
        let source = dir.path().join("source");
        let make = |program: &str| {
            fs::write(&source, program).unwrap();
            EtcFiles::make(dir.path(), &source).unwrap()
        };
        let etc = make("program");
        let inodes = || [&etc.filter, &etc.program].map(|path| fs::metadata(path).unwrap().ino());
        let first = inodes();
        make("program");
        assert_eq!(inodes(), first, "nothing new");
        fs::remove_file(&etc.filter).unwrap();
        fs::write(&etc.filter, "of an older server").unwrap();
        let older = File::open(&etc.filter).unwrap();
        make("another");
        assert_eq!(fs::read(&etc.filter).unwrap(), seccomp::filter());
        assert_eq!(fs::read(&etc.program).unwrap(), b"another", "of the same length");
        assert_eq!(older.metadata().unwrap().len(), 18, "who has it open reads what was in it");
        assert_eq!(names(dir.path()), ["init", "seccomp", "source"]);
        make("a longer one");
        assert_eq!(fs::read(&etc.program).unwrap(), b"a longer one");
    }
}
