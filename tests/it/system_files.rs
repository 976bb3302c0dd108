//! What an app sees of the machine's system: what its programs need, and nothing of its people's.

use crate::harness::apps::{create, deploy, ended};
use crate::harness::{GitServer, Setup};
use serde_json::json;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Where installed programs have their files, with links to those that an administrator may change.
const INSTALLED: [&str; 3] = ["/usr/lib/jvm", "/usr/share/maven", "/etc/fonts/conf.d"];

/// What programs look for by name.
const NAMED: [&str; 4] =
    ["/etc/fonts/fonts.conf", "/etc/php", "/etc/ImageMagick-6", "/etc/os-release"];

/// What no program of an app's needs.
const FOREIGN: [&str; 6] = [
    "/etc/environment",
    "/etc/ssl/private",
    "/etc/shadow",
    "/etc/sudoers",
    "/etc/ssh",
    "/etc/machine-id",
];

/// Says of each path of a list whether it is there; runs Java, PHP and fontconfig where the machine has them.
const LOOK: &str = "\
while read -r path; do [ -e \"$path\" ] && echo \"sees $path\"; done <paths
for program in 'java Main.java' 'php main.php' 'fc-match sans' 'mvn --version'; do
    command -v ${program%% *} >/dev/null || continue
    $program || echo \"cannot: $program\"
done
";

const JAVA: &str = "\
public class Main {
    public static void main(String[] words) throws Exception {
        java.security.SecureRandom.getInstanceStrong();
        System.out.println(\"java: \" + javax.net.ssl.SSLContext.getDefault().getProtocol());
    }
}
";

/// Finds the links below a directory, as many as lead somewhere.
fn links(directory: &Path, found: &mut BTreeSet<PathBuf>) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let (path, kind) = (entry.path(), entry.file_type().expect("a type"));
        if kind.is_dir() {
            links(&path, found);
        } else if kind.is_symlink() && path.exists() {
            found.insert(path);
        }
    }
}

/// Whether the file itself is below `/usr` or `/etc`, and everybody may read it.
fn is_a_programs(path: &Path) -> bool {
    let target = fs::canonicalize(path).expect("it is there");
    let everybody = fs::metadata(&target).is_ok_and(|meta| meta.mode() & 0o004 != 0);
    everybody && ["/usr", "/etc"].iter().any(|top| target.starts_with(top))
}

#[test]
fn an_app_sees_of_etc_what_installed_programs_need_and_nothing_else() {
    let mut needed = BTreeSet::new();
    INSTALLED.iter().for_each(|place| links(Path::new(place), &mut needed));
    needed.extend(NAMED.iter().map(PathBuf::from).filter(|path| path.exists()));
    needed.retain(|path| is_a_programs(path));
    assert!(needed.contains(Path::new(NAMED[0])), "chromium, which the tests need, needs fonts");
    let foreign = FOREIGN.iter().map(PathBuf::from).filter(|path| path.exists());
    let paths: Vec<String> = needed.iter().cloned().chain(foreign).map(text).collect();

    let git = GitServer::start();
    let files = [
        ("paths", paths.join("\n") + "\n"),
        ("look.sh", LOOK.to_owned()),
        ("Main.java", JAVA.to_owned()),
        ("main.php", "<?php exit(php_ini_loaded_file() ? 0 : 1);".to_owned()),
        ("Procfile", "web: false\n".to_owned()),
    ];
    git.commit("looker", &files.each_ref().map(|(name, text)| (*name, text.as_str())));
    let server = Setup::new().as_user().start();
    let mut owner = server.owner();
    let app = json!({"name": "looker", "gitRepo": git.url("looker"), "buildCommand": "sh look.sh"});
    let app = create(&mut owner, &app);
    let id = deploy(&mut owner, &app);
    ended(&mut owner, &id);
    let log = owner.get(&format!("/api/deploys/{id}/log")).expect(200).text();
    let seen: BTreeSet<PathBuf> = log
        .lines()
        .filter_map(|line| line.split_once("sees ").map(|(_, path)| path.into()))
        .collect();
    assert_eq!(seen, needed, "{log}");
    assert!(!log.contains("cannot: "), "{log}");
}

fn text(path: PathBuf) -> String {
    path.into_os_string().into_string().expect("UTF-8")
}
