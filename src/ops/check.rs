//! `server check`: the live checklist (P28). A running server judges every point; without one,
//! those are judged that the data directory and the machine tell.

use super::{existing, installed_key, key_of, line, lockouts, read_key};
use crate::auth::token;
use crate::backup::keeper::kept;
use crate::checks::{self, Backups, Disk, Facts, Finding, Level, Token, Updates, glance};
use crate::config::{Config, Settings, runs_installed};
use crate::data_dir::DataDir;
use crate::disk::space::Space;
use crate::model::{AnyError, UnixMillis, unix_millis};
use crate::proc::{Cancel, Exec, table};
use crate::store::{DATABASE, Store, wanted_key};
use crate::vault::Vault;
use crate::vault::key::{self, Key};
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

/// What a server does not say of itself is not judged without it.
const OFFLINE: &str = "no server runs, so that nothing is said of apps, fences, certificates, \
                       and how requests come";

/// How long a program of the system may take to answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// When this program was released, in seconds since 1970, where it was.
const BUILT: Option<&str> = option_env!("BETTER_PAAS_BUILT");

/// All findings, for a person or as JSON; whether none of them is to be mended now.
///
/// # Errors
/// When there is no data directory, or the running server does not answer.
pub fn run(as_json: bool) -> Result<(String, bool), AnyError> {
    let settings = Settings::of_this_program()?;
    let installed = installed_key().map(read_key).transpose()?;
    // Opening the data directory closes them.
    let open = open_files(&settings.config()?.data_dir);
    let (config, data) = existing(&settings)?;
    let (mut findings, note) = if data.holder().is_some() {
        let answer = lockouts::ask("GET", "/api/security/check")?;
        (serde_json::from_value::<Vec<Finding>>(answer["findings"].clone())?, None)
    } else {
        (offline(&config, &data, installed.as_ref())?, Some(OFFLINE))
    };
    if !open.is_empty() {
        findings.retain(|finding| finding.id != "files");
        let sentence = format!("until now other users could reach {}", open.join(" "));
        let mend = format!(
            "this command has closed it; if that was so for long, `{}`",
            line::of(data.path(), "token --rotate")
        );
        let (id, level) = ("files".to_owned(), Level::Fail);
        findings.insert(0, Finding { id, level, sentence, mend, app_id: None });
    }
    let is_well = findings.iter().all(|finding| finding.level != Level::Fail);
    if as_json {
        let text = serde_json::json!({"findings": findings, "note": note}).to_string();
        return Ok((text, is_well));
    }
    let shown = |finding: &Finding| {
        let Finding { level, sentence, .. } = finding;
        let mend = finding.mend.replace('`', "");
        match level {
            Level::Pass => format!("ok    {sentence}"),
            Level::Warn => format!("WARN  {sentence}\n      {mend}"),
            Level::Fail => format!("FAIL  {sentence}\n      {mend}"),
        }
    };
    let lines = findings.iter().map(shown).chain(note.map(|note| format!("note  {note}")));
    Ok((lines.collect::<Vec<_>>().join("\n"), is_well))
}

fn offline(
    config: &Config,
    data: &DataDir,
    installed: Option<&Key>,
) -> Result<Vec<Finding>, AnyError> {
    let (mut facts, stop) = (gather(config, data), Cancel::new()?);
    facts.audit = audit(data).ok();
    facts.clock_is_set = clock_is_set(&stop);
    facts.updates = updates(&stop);
    let mut found = checks::findings(&facts);
    if let Err(why) = opens(config, data, installed) {
        let mend = format!("`{}`", line::of(data.path(), "rekey --mark-lost"));
        let (id, sentence) = ("database".to_owned(), why.to_string());
        found.insert(0, Finding { id, level: Level::Fail, sentence, mend, app_id: None });
    }
    Ok(found)
}

/// Whether the key that is here opens every value.
fn opens(config: &Config, data: &DataDir, installed: Option<&Key>) -> Result<(), AnyError> {
    let database = data.join(DATABASE);
    if !database.exists() {
        return Ok(());
    }
    let (key, source) = key_of(config, data, installed, false)?;
    let (is, wanted) = (key.id(), wanted_key(&database)?);
    let store = Store::open_unproved(&database, Vault::new(key))?;
    let lost = store.mark_lost(false)?;
    if is == wanted && lost.is_empty() {
        return Ok(());
    }
    let lost = lost.join(", ");
    let why = format!("the key from {source} is {is}, and the database wants {wanted}");
    Err(format!("{why}; it does not open: {lost}").into())
}

/// What is wrong with the chain of the audit log, if anything is.
///
/// # Errors
/// When there is no database of this version.
pub fn audit(data: &DataDir) -> Result<Option<String>, AnyError> {
    Ok(store(data)?.verify_audit()?)
}

/// A view of the database for which no key is needed.
fn store(data: &DataDir) -> Result<Store, AnyError> {
    Ok(Store::open_unproved(&data.join(DATABASE), Vault::new(Key::random()?))?)
}

/// What the data directory and the machine tell at once.
pub fn gather(config: &Config, data: &DataDir) -> Facts {
    Facts {
        now: unix_millis(),
        command: line::of(data.path(), "").trim_end().to_owned(),
        is_installed: runs_installed(),
        token: Some(token_facts(config, data)),
        key_in_data: key_in_data(data),
        open_files: Some(open_files(data.path())),
        cleartext: store(data).and_then(|store| Ok(store.count_older_forms()?)).ok(),
        backups: Some(backups(config, data)),
        built_at: BUILT.and_then(|at| Some(at.parse::<UnixMillis>().ok()? * 1000)),
        disk: Space::of(data.path()).ok().map(|space| Disk {
            free: space.free,
            all: space.all,
            mount: shown(mount_of(data.path())),
            too_little: space.too_little(),
            is_short: space.is_short(),
        }),
        reboot_required: reboot_required(Path::new("/")),
        ..Facts::default()
    }
}

/// The file of the key in the data directory, if the database is sealed with that one; nothing
/// where it does not say with which.
fn key_in_data(data: &DataDir) -> Option<Option<String>> {
    let wanted = wanted_key(&data.join(DATABASE)).ok()?;
    let saved = Key::saved(data, key::FILE).ok()?.filter(|key| key.id() == wanted);
    Some(saved.map(|_| shown(&data.join(key::FILE))))
}

/// The directory at which the file system of a path is mounted.
fn mount_of(path: &Path) -> &Path {
    let device = |path: &Path| fs::metadata(path).map(|about| about.dev()).ok();
    let is_same = |above: &&Path| device(above) == device(path);
    path.ancestors().take_while(is_same).last().unwrap_or(path)
}

fn shown(path: &Path) -> String {
    line::quoted(&path.to_string_lossy())
}

fn written(about: &Metadata) -> Option<UnixMillis> {
    about.modified().ok()?.duration_since(UNIX_EPOCH).ok()?.as_millis().try_into().ok()
}

fn written_at(path: impl AsRef<Path>) -> Option<UnixMillis> {
    written(&fs::metadata(path).ok()?)
}

fn token_facts(config: &Config, data: &DataDir) -> Token {
    let token = config.admin_token.clone().or_else(|| token::read(data).ok().flatten());
    // Of these it is known.
    let ours = [Some(std::process::id()), data.holder().and_then(|holder| holder.pid)];
    let shows = |pid: u32| {
        let token = token.as_ref().map(|token| token.expose().as_bytes());
        !ours.contains(&Some(pid)) && token.is_some_and(|token| table::shows(pid, token))
    };
    let shown_by = table::all().into_iter().find(|process| shows(process.pid));
    Token {
        is_pinned: config.admin_token.is_some(),
        made_at: written_at(data.join(token::FILE)),
        shown_by: shown_by.map(|process| (process.pid, process.name)),
    }
}

/// Those files of the server's own that others may touch.
fn open_files(data: &Path) -> Vec<String> {
    let inside = |dir: PathBuf| fs::read_dir(dir).into_iter().flatten().flatten();
    let files = inside(data.to_owned()).chain(inside(data.join("backups")));
    let files = files.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_file()));
    let all = files.map(|entry| entry.path()).chain([data.to_owned()]);
    let is_open = |path: &PathBuf| {
        fs::metadata(path).is_ok_and(|about| {
            let others = if about.is_dir() { 0o022 } else { 0o077 };
            about.mode() & others != 0
        })
    };
    all.filter(is_open).map(|path| shown(&path)).collect()
}

fn backups(config: &Config, data: &DataDir) -> Backups {
    let all = kept(data);
    let place = |path: &Path| fs::metadata(path).map(|about| about.dev()).ok();
    let newest = all.iter().find(|kept| kept.note.error.is_none());
    let damaged = all.iter().find(|kept| kept.note.error.is_some());
    Backups {
        interval_hours: config.backups.interval_hours,
        newest_at: newest.map(|kept| kept.note.created_at),
        since: written_at(data.join(token::FILE)).unwrap_or_else(unix_millis),
        last_error: None,
        damaged: damaged.and_then(|kept| Some((shown(&kept.path), kept.note.error.clone()?))),
        is_elsewhere: !config.backups.command.is_empty()
            || place(&data.join("backups")).is_some_and(|there| Some(there) != place(data.path())),
        command_error: newest.and_then(|kept| Some(glance(kept.note.command_error.as_ref()?))),
    }
}

/// Whether the system says so, or a kernel was installed after it had started.
fn reboot_required(root: &Path) -> bool {
    let uptime = fs::read_to_string(root.join("proc/uptime")).unwrap_or_default();
    let seconds = uptime.split('.').next().and_then(|seconds| seconds.parse::<i64>().ok());
    let started = unix_millis() - seconds.unwrap_or(i64::MAX / 2000) * 1000;
    let kernels = fs::read_dir(root.join("boot")).into_iter().flatten().flatten();
    let mut kernels =
        kernels.filter(|entry| entry.file_name().to_string_lossy().starts_with("vmlinuz-"));
    root.join("run/reboot-required").exists()
        || kernels.any(|kernel| written_at(kernel.path()).is_some_and(|at| at > started))
}

/// Whether the clock is kept right over the network; nothing where the system does not say, and in
/// a container, which has its host's.
pub fn clock_is_set(stop: &Cancel) -> Option<bool> {
    if Path::new("/run/systemd/container").exists() {
        return None;
    }
    let asked = Exec::new("timedatectl").args(["show", "-p", "NTPSynchronized", "--value"]);
    let output = asked.deadline(PATIENCE).run_until(stop).ok()?;
    match String::from_utf8_lossy(&output.stdout).trim() {
        "yes" => Some(true),
        "no" => Some(false),
        _ => None,
    }
}

/// What the system's packages wait for, by its own lists: nobody is asked over the network.
pub fn updates(stop: &Cancel) -> Option<Updates> {
    let asked = Exec::new("apt-get").args([
        "-s",
        "-o",
        "Debug::NoLocking=true",
        "--with-new-pkgs",
        "upgrade",
    ]);
    let output = asked.deadline(PATIENCE).run_until(stop).ok()?;
    output.exit.is_success().then(|| Updates {
        security: security_updates(&String::from_utf8_lossy(&output.stdout)),
        asked_at: written_at("/var/lib/apt/lists/partial"),
    })
}

/// `Inst openssl [3.0.1] (3.0.2 Debian-Security:12/stable-security [amd64])`.
fn security_updates(text: &str) -> usize {
    let is_one = |line: &&str| {
        line.starts_with("Inst ") && (line.contains("-security") || line.contains("-Security"))
    };
    text.lines().filter(is_one).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p28_updates_are_counted_that_are_for_security() {
        let text = "Reading package lists...\n\
            Inst openssl [3.0.1] (3.0.2 Debian-Security:12/stable-security [amd64])\n\
            Inst tzdata [1] (2 Debian:12.5/stable-updates [all])\n\
            Inst libc6 [1] (2 Ubuntu:24.04/noble-security [amd64])\n\
            Conf openssl (3.0.2 Debian-Security:12/stable-security [amd64])\n";
        assert_eq!(security_updates(text), 2);
    }

    #[test]
    fn p28_a_restart_is_required_when_the_system_says_so_or_a_kernel_is_newer_than_its_start() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        assert!(!reboot_required(root));
        fs::create_dir_all(root.join("boot")).unwrap();
        fs::create_dir_all(root.join("proc")).unwrap();
        fs::create_dir_all(root.join("run")).unwrap();
        fs::write(root.join("boot/vmlinuz-6.1.0-1"), "").unwrap();
        fs::write(root.join("proc/uptime"), "0.00 0.00\n").unwrap();
        let old = std::time::SystemTime::now() - Duration::from_secs(7200);
        let kernel = fs::File::open(root.join("boot/vmlinuz-6.1.0-1")).unwrap();
        kernel.set_modified(old).unwrap();
        assert!(!reboot_required(root), "it was installed before");
        fs::write(root.join("proc/uptime"), "9000.00 0.00\n").unwrap();
        assert!(reboot_required(root));
        fs::write(root.join("proc/uptime"), "0.00 0.00\n").unwrap();
        fs::write(root.join("run/reboot-required"), "").unwrap();
        assert!(reboot_required(root));
    }
}
