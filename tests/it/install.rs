//! Installing, and the manual's commands that keep and remove the service: root runs nothing that the server's own user
//! can change (P36).

use crate::harness::program::run;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What the README said until `/opt/better-paas` became root's.
const BEFORE: &str = "
useradd --create-home --home-dir /opt/better-paas paas
install target/release/server /opt/better-paas/
install scripts/firewall /opt/better-paas/
cat >/etc/systemd/system/better-paas.service <<'END'
[Service]
User=paas
ExecStartPre=-+/opt/better-paas/firewall paas
WorkingDirectory=/opt/better-paas
ExecStart=/opt/better-paas/server
KillMode=process
END
systemctl enable --now better-paas
";

fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The one block of shell commands on a page that holds these words.
#[track_caller]
fn commands(page: &str, words: &str) -> String {
    let text = fs::read_to_string(top().join(page)).expect("a page");
    let blocks = text.split("\n```sh\n").skip(1).filter_map(|rest| rest.split("\n```").next());
    let found: Vec<&str> = blocks.filter(|block| block.contains(words)).collect();
    assert_eq!(found.len(), 1, "blocks with {words:?} in {page}");
    format!("{}\n", found[0])
}

fn executable(path: &Path, text: &str) {
    fs::write(path, text).expect("a program");
    fs::set_permissions(path, PermissionsExt::from_mode(0o755)).expect("a mode");
}

/// Follows commands, each under the name that the fixture knows it by; what it tells. Nothing where only root could.
fn followed(blocks: &[(&str, String)]) -> Option<String> {
    if !rustix::process::getuid().is_root() {
        eprintln!("NOT TESTED: only root installs anything");
        return None;
    }
    let room = tempfile::tempdir().expect("a directory");
    let place = |name: &str| -> PathBuf { room.path().join(name) };
    for directory in ["blocks", "bin", "checkout/target/release", "checkout/scripts"] {
        fs::create_dir_all(place(directory)).expect("a directory");
    }
    for (name, text) in blocks {
        fs::write(place("blocks").join(name), text).expect("commands");
    }
    fs::copy(env!("CARGO_BIN_EXE_server"), place("checkout/target/release/server"))
        .expect("a copy");
    fs::copy(top().join("scripts/firewall"), place("checkout/scripts/firewall")).expect("a copy");
    let systemctl = include_str!("fixtures/systemctl.sh");
    let systemctl = format!("#!/bin/bash\nset -eu\nROOM={}\n{systemctl}\n", room.path().display());
    executable(&place("bin/systemctl"), &systemctl);
    let systemd_run = include_str!("fixtures/systemd-run.sh");
    executable(&place("bin/systemd-run"), &format!("#!/bin/bash\nset -eu\n{systemd_run}\n"));
    let journal = format!("#!/bin/sh\ntail -n 1 {}/log\n", room.path().display());
    executable(&place("bin/journalctl"), &journal);
    for stub in ["git", "cargo", "apparmor_parser"] {
        executable(&place("bin").join(stub), "#!/bin/sh\n");
    }
    executable(&place("bin/apt-get"), "#!/bin/sh\necho 'a package is missing here' >&2; exit 1\n");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/fixtures/install.sh");
    let mut command = Command::new("unshare");
    command.args([
        "--mount",
        "--propagation",
        "private",
        "--net",
        "--pid",
        "--fork",
        "--mount-proc",
    ]);
    Some(run(command.args(["bash", script]).arg(place("checkout")).arg(room.path())))
}

/// The part of what was told that begins with `== NAME`.
#[track_caller]
fn part<'a>(told: &'a str, name: &str) -> &'a str {
    let (_, rest) = told.split_once(&format!("== {name}\n")).unwrap_or_else(|| panic!("{told}"));
    rest.split("== ").next().unwrap_or(rest)
}

/// What of that part breaks the promise: a program that root or the server runs, the unit, or a directory above them,
/// that is not root's or that others may write.
#[track_caller]
fn faults(part: &str) -> Vec<&str> {
    let steps: Vec<&str> = part.lines().filter_map(|l| l.strip_prefix("on the way: ")).collect();
    let programs = ["server", "firewall"].map(|name| format!("program: /opt/better-paas/{name}\n"));
    assert!(programs.iter().all(|line| part.contains(line)), "{part}");
    assert!(steps.len() > 10, "{part}");
    let at_fault = |step: &&str| {
        let mut words = step.splitn(3, ' ');
        let mut word = || words.next().expect("owner, mode, kind");
        let (owner, mode, kind) = (word(), u32::from_str_radix(word(), 8), word());
        // A link's own mode means nothing; where it leads is looked at too.
        owner != "0" || !kind.starts_with("symbolic link") && mode.expect("octal") & 0o022 != 0
    };
    steps.into_iter().filter(at_fault).collect()
}

#[track_caller]
fn is_roots_alone(told: &str, name: &str) {
    let part = part(told, name);
    assert_eq!(faults(part), Vec::<&str>::new(), "{name}: {part}");
    let written: Vec<&str> =
        part.lines().filter_map(|line| line.strip_prefix("paas can write: ")).collect();
    assert_eq!(written, ["/opt/better-paas/data"], "{name}: {part}");
}

#[test]
fn p36_an_installation_leaves_to_the_servers_user_its_data_and_nothing_that_root_runs() {
    let manual = |page: &str, words: &str| commands(&format!("assets/manual/{page}"), words);
    let Some(told) = followed(&[
        ("backup", manual("backup.md", "~/today.tgz")),
        ("recover", manual("backup.md", "rm secret.key")),
        ("update", manual("update.md", "git pull")),
        ("take-along", manual("service.md", "mv data ")),
        ("key", manual("service.md", "/etc/better-paas.key")),
    ]) else {
        return;
    };
    for name in
        ["installed", "recovered", "with a key", "updated", "taken along", "updated by itself"]
    {
        is_roots_alone(&told, name);
    }
    for line in [
        "a dry run did nothing",
        "server: only root can do this; use sudo",
        "everything is in place; there is nothing to do",
        "The dashboard: http://127.0.0.1:8080",
        "root ran nothing of paas's",
        "the server runs as paas",
        "the firewall is loaded",
        "root has the token from anywhere",
        "paas has the token",
        "server: only root may read /etc/better-paas.conf; run this as root: sudo better-paas …",
        "the token is of paas, 600",
        "nobody is locked out",
        "ADMIN_TOKEN             (hidden)                     /etc/better-paas.conf",
        "DATA_DIR                /opt/better-paas/data        default",
        "BASEDOMAIN is no setting of this server and has no effect; is it BASE_DOMAIN?",
        "the backup is of paas, 600",
        "the backup is of root, 600",
        "all is back",
        "the database is of paas, 600",
        "the key is out of the data",
        "the first look came along",
        "what is left: /opt/better-paas/data and /etc/better-paas.conf",
        "left: /opt/better-paas/data",
        "left: /etc/better-paas.conf",
        "it asks before it purges",
        "nothing is left",
    ] {
        assert!(told.contains(&format!("{line}\n")), "{line}: {told}");
    }
    p30_updates(&told);
    assert_eq!(told.lines().filter(|line| line.starts_with("left: ")).count(), 2, "{told}");
}

/// What updates of that installation told, in this order.
#[track_caller]
fn p30_updates(told: &str) {
    let mut rest = told;
    for words in [
        // What is not the program that is meant, or nobody's but root's, is not taken.
        "newer.sha256 could not be had: ",
        "server: http://h.example/server could not be had: curl: (1)",
        "link could not be had: ",
        "the database is copied: /opt/better-paas/data/before-update/newest\n",
        "the new program has proved itself on a copy of that\n",
        "updated; version 0.1.1 serves\nserved: ok 0.1.1\nlast update: 0.1.1 updated\n",
        "this program is installed already; there is nothing to do\n",
        "version 0.1.0 is older than the installed 0.1.1; if that is meant: better-paas update FILE --downgrade\n",
        // One that does not serve.
        "rolled back: ",
        "the last line of its log: It does not serve.\nserved: ok 0.1.1\nlast update: 0.1.2 rolled back\n",
        // One that serves as another version.
        "server: rolled back: it serves as \"ok 0.1.1\", not as 0.1.2;",
        "mine is back: 0 True\nserved: ok 0.1.1\n",
        "server: an installation or an update is under way already\n",
        // One that was killed.
        "rolled back; version 0.1.1 serves\n",
        "server.before\nupdate.json\n",
        "updated; version 0.1.0 serves\nserved: ok 0.1.0\nlast update: 0.1.0 updated\n",
    ] {
        let found = rest.split_once(words);
        rest = found.unwrap_or_else(|| panic!("{words:?} is missing: {told}")).1;
    }
}

#[test]
fn p36_an_installation_of_before_is_root_for_its_user_until_it_is_installed_anew() {
    let Some(told) = followed(&[("before", BEFORE.to_owned())]) else { return };
    let before = part(&told, "before");
    assert!(faults(before).iter().any(|step| step.ends_with(": /opt/better-paas")), "{before}");
    assert!(before.contains("root ran a script of paas's\n"), "{before}");
    let mended = part(&told, "mended");
    assert_eq!(faults(mended), Vec::<&str>::new(), "{mended}");
    assert!(!told.contains("left: "), "an update would take it for its own: {told}");
    assert!(mended.contains("root ran nothing of paas's\n"), "{mended}");
}

/// A caller's environment and lines of two files that would have root run what they name.
const HOSTILE: &str = r#"
mkdir "$1/evil" && cd "$1"
for name in bash env id nft paste; do
    printf '#!/bin/sh\n: >%s/ran-%s\nPATH=/usr/sbin:/usr/bin exec %s "$@"\n' "$1" "$name" "$name" >evil/$name
done
chmod 755 evil/*
echo ": >$1/ran-environment" >evil/environment
printf '%s\n' 'nameserver 127.0.0.1,0.0.0.0/0' 'nameserver 127.0.0.1}accept;' 'nameserver 169.254.1.1' >resolv
echo "root:PATH[\$(/usr/bin/touch $1/ran-subuid)]:65536" >subuid
echo "root:300000:65536" >usual
mount --bind resolv "$(readlink -f /etc/resolv.conf)"
eval "nft() { : >$1/ran-function; }"
export -f nft
export PATH="$1/evil" BASH_ENV="$1/evil/environment"
for file in usual subuid; do
    /usr/bin/mount --bind $file /etc/subuid
    "$2" root && /usr/sbin/nft list table inet better_paas
done
exit 0
"#;

#[test]
fn p36_the_firewall_runs_nothing_that_its_caller_or_a_line_of_a_file_names() {
    if !rustix::process::getuid().is_root() {
        eprintln!("NOT TESTED: only root loads firewalls");
        return;
    }
    let room = tempfile::tempdir().expect("a directory");
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "--net", "bash", "-c", HOSTILE, "bash"]);
    let told = run(command.arg(room.path()).arg(top().join("scripts/firewall")));
    let ran = fs::read_dir(room.path()).expect("a directory").flatten().map(|e| e.file_name());
    let ran: Vec<_> = ran.filter(|name| name.to_string_lossy().starts_with("ran-")).collect();
    assert!(ran.is_empty(), "{ran:?}");
    assert_eq!(told.matches("table inet better_paas").count(), 1, "one range, one refusal: {told}");
    assert!(told.contains("{ 127.0.0.53, 169.254.1.1 } accept"), "{told}");
    assert!(told.contains("300000-365535"), "{told}");
}
