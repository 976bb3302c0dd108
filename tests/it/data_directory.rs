//! The data directory (P25 to P27).

use crate::harness::sealed::first_app;
use crate::harness::server::mode;
use crate::harness::wait::let_pass;
use crate::harness::{Finished, Http, Server, Setup, random, until};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Every file, directory and socket below a directory, and itself.
fn everything(directory: &Path) -> Vec<PathBuf> {
    let mut all = vec![directory.to_owned()];
    for entry in std::fs::read_dir(directory).unwrap().flatten() {
        if entry.file_type().unwrap().is_dir() {
            all.extend(everything(&entry.path()));
        } else {
            all.push(entry.path());
        }
    }
    all
}

#[track_caller]
fn all_private(directory: &Path) {
    assert_eq!(mode(directory), 0o700);
    for path in everything(directory) {
        let kind = std::fs::symlink_metadata(&path).unwrap().file_type();
        let found = mode(&path);
        if path == directory.join("sandbox/init") {
            // The program that comes first in every sandbox: apps run it.
            assert_eq!(found, 0o755);
        } else if kind.is_file() {
            assert_eq!(found, 0o600, "{}", path.display());
        } else {
            assert_eq!(found & 0o077, 0, "{}: {found:o}", path.display());
        }
    }
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

#[track_caller]
fn refused(setup: &Setup, word: &str) -> Finished {
    let finished = setup.run(&[]);
    assert_eq!(finished.code, Some(1), "{finished:?}");
    let last = finished.stderr.lines().last().unwrap();
    assert!(last.contains(word), "{finished:?}");
    finished
}

#[test]
fn p25_data_is_for_its_owner_alone_whatever_the_umask() {
    for umask in ["umask 0", "umask 022", "umask 077"] {
        let server = Setup::new().shell(umask).start();
        first_app(&server, "shop", Some("ghp_secret"));
        server.operator(&["token", "--rotate"]);
        server.owner().get("/api/apps").expect(200);
        all_private(&server.data());
        let names = std::fs::read_dir(server.data()).unwrap().flatten();
        let names: BTreeSet<_> = names.map(|e| e.file_name().into_string().unwrap()).collect();
        for name in ["better-paas.db", "admin_token.txt", "secret.key"] {
            assert!(names.contains(name), "{names:?}");
        }
    }
}

#[test]
fn p25_looser_modes_are_tightened_and_the_log_says_so() {
    let setup = Server::start().stop();
    let data = setup.data();
    set_mode(&data, 0o755);
    for name in ["secret.key", "admin_token.txt", "better-paas.db"] {
        set_mode(&data.join(name), 0o644);
    }
    let server = setup.start();
    all_private(&data);
    for name in ["secret.key", "admin_token.txt"] {
        assert!(server.log().contains(name), "{}", server.log());
    }
    let quiet = server.restart();
    assert!(!quiet.log().contains("could reach"), "nothing to say: {}", quiet.log());

    // Where apps and the router read, others shall not write.
    until("the sandbox's files", Duration::from_secs(20), || data.join("sandbox/seccomp").exists());
    let setup = quiet.stop();
    let loose = ["sandbox", "sandbox/seccomp", "router", "apps"].map(|name| data.join(name));
    std::fs::create_dir_all(&loose[3]).unwrap();
    for path in &loose {
        set_mode(path, 0o777);
    }
    let server = setup.start();
    for path in &loose {
        assert_eq!(mode(path) & 0o022, 0, "{}", path.display());
    }
    assert!(server.log().contains("sandbox"), "{}", server.log());
}

#[test]
fn p25_a_directory_of_another_user_is_refused() {
    let setup = Setup::new();
    // For everybody but root, root's directories are another user's.
    let mut foreign = PathBuf::from("/usr");
    if rustix::process::getuid().is_root() {
        foreign = setup.data();
        std::fs::create_dir(&foreign).unwrap();
        std::os::unix::fs::chown(&foreign, Some(65_534), Some(65_534)).unwrap();
    }
    let setup = setup.env("DATA_DIR", foreign.to_str().unwrap());
    let before = mode(&foreign);
    refused(&setup, foreign.to_str().unwrap());
    assert_eq!(mode(&foreign), before);
    assert!(!foreign.join("admin_token.txt").exists());
    // A command tells whom to run it as; with another owner the server would not start. Root becomes that user.
    std::fs::set_permissions(setup.home(), PermissionsExt::from_mode(0o755)).unwrap();
    let finished = setup.run(&["token"]);
    assert_eq!(finished.code, Some(1), "{finished:?}");
    let is_root = rustix::process::getuid().is_root();
    let said = if is_root { "there is no token yet" } else { "sudo -u root " };
    assert!(finished.stderr.contains(said), "{finished:?}");
    assert!(!finished.stderr.contains("chown"), "{finished:?}");
}

#[test]
fn p36_a_command_of_roots_is_the_owner_of_the_data_before_it_touches_it() {
    if !rustix::process::getuid().is_root() {
        eprintln!("NOT TESTED: only root can become somebody else");
        return;
    }
    let setup = Setup::new();
    std::fs::set_permissions(setup.home(), PermissionsExt::from_mode(0o755)).unwrap();
    let data = setup.data();
    std::fs::create_dir(&data).unwrap();
    std::os::unix::fs::chown(&data, Some(65_534), Some(65_534)).unwrap();
    // Root could follow this link, and would write into the file.
    let secret = setup.home().join("roots");
    std::fs::write(&secret, "root's").unwrap();
    std::os::unix::fs::symlink(&secret, data.join("admin_token.txt")).unwrap();
    let finished = setup.run(&["token"]);
    assert_eq!(finished.code, Some(1), "{finished:?}");
    let finished = setup.run(&["token", "--rotate"]);
    assert_eq!(finished.code, Some(0), "{finished:?}");
    let made = std::fs::symlink_metadata(data.join("admin_token.txt")).unwrap();
    assert!(made.is_file() && made.uid() == 65_534 && made.gid() == 65_534);
    assert_eq!(std::fs::read_to_string(&secret).unwrap(), "root's");
    // A user whom this machine does not know can be nobody's.
    std::os::unix::fs::chown(&data, Some(4_000_000_000), Some(0)).unwrap();
    let finished = setup.run(&["token"]);
    assert!(finished.stderr.contains("sudo -u '#4000000000' "), "{finished:?}");
}

#[test]
fn p25_a_link_to_where_others_can_write_is_refused() {
    let setup = Setup::new();
    let open = setup.home().join("open");
    std::fs::create_dir(&open).unwrap();
    set_mode(&open, 0o777);
    symlink(&open, setup.data()).unwrap();
    refused(&setup, "open");
    assert_eq!(std::fs::read_dir(&open).unwrap().count(), 0);

    // The directory is ours, but others can put another in its place.
    let below = Setup::new();
    let open = below.home().join("open");
    std::fs::create_dir_all(open.join("ours")).unwrap();
    set_mode(&open, 0o777);
    symlink(open.join("ours"), below.data()).unwrap();
    refused(&below, "open");

    // A link to a place of our own is fine.
    let fine = Setup::new();
    let own = fine.home().join("own");
    std::fs::create_dir(&own).unwrap();
    set_mode(&own, 0o700);
    symlink(&own, fine.data()).unwrap();
    fine.start().owner().get("/api/session").expect(200);
}

#[test]
fn p25_a_file_in_its_place_is_refused() {
    let setup = Setup::new();
    std::fs::write(setup.data(), "hello").unwrap();
    refused(&setup, "data");
    assert_eq!(std::fs::read(setup.data()).unwrap(), b"hello");
}

#[test]
fn p26_a_second_server_on_the_same_data_is_refused_by_a_lock() {
    let server = Server::start();
    let second = refused(server.setup(), "data");
    assert!(!second.stderr.contains("panicked"));
    server.owner().get("/api/session").expect(200);
    assert!(server.data().join("gate.sock").exists());
    // The operator's commands still reach the first.
    assert_eq!(server.operator(&["lockouts"]).code, Some(0));
    // A killed server leaves no lock behind.
    let mut server = server;
    server.kill9();
    let setup = server.setup().clone();
    setup.start().owner().get("/api/session").expect(200);
}

/// What one writer knows about its writes.
#[derive(Default)]
struct Ledger {
    /// Acknowledged apps that must be there.
    there: BTreeSet<String>,
    /// Apps whose removal was acknowledged.
    gone: BTreeSet<String>,
    /// The last acknowledged number in the environment, and the last one sent.
    acknowledged: u64,
    sent: u64,
}

/// Writes until the server is gone: apps come and go, and an environment whose two values always agree.
fn write_until_killed(mut client: Http, env_path: &str, ledger: &mut Ledger, count: &AtomicU64) {
    loop {
        let name = format!("a-{}", crate::harness::hex(&random::<8>()));
        let app =
            json!({"name": name, "gitRepo": "https://git.example.com/a.git", "gitToken": name});
        let Ok(created) = client.try_request("POST", "/api/apps", Some(app.to_string().as_bytes()))
        else {
            return;
        };
        assert_eq!(created.status, 201, "{}", created.text());
        let id = created.json()["id"].as_str().unwrap().to_owned();
        ledger.there.insert(id.clone());
        count.fetch_add(1, Ordering::Relaxed);

        ledger.sent += 1;
        let number = ledger.sent.to_string();
        let env =
            json!({"env": [{"name": "LEFT", "value": number}, {"name": "RIGHT", "value": number}]});
        let Ok(saved) = client.try_request("PUT", env_path, Some(env.to_string().as_bytes()))
        else {
            return;
        };
        assert_eq!(saved.status, 200, "{}", saved.text());
        ledger.acknowledged = ledger.sent;
        count.fetch_add(1, Ordering::Relaxed);

        // Its end is open from the moment that the removal is sent.
        ledger.there.remove(&id);
        let Ok(removed) = client.try_request("DELETE", &format!("/api/apps/{id}"), None) else {
            return;
        };
        assert!(removed.status < 300, "{}", removed.text());
        ledger.gone.insert(id);
        count.fetch_add(1, Ordering::Relaxed);
    }
}

/// Holds what a restarted server shows against the ledger, and tidies up.
fn compare(owner: &mut Http, env_path: &str, ledger: &mut Ledger, fixed: &str) {
    let apps = owner.get("/api/apps").expect(200).json();
    let shown: BTreeSet<String> = apps["apps"]
        .as_array()
        .unwrap()
        .iter()
        .map(|a| {
            assert_eq!(a["hasGitToken"], a["id"] != *fixed, "half an app: {a}");
            a["id"].as_str().unwrap().to_owned()
        })
        .collect();
    assert!(shown.contains(fixed));
    assert!(ledger.there.is_subset(&shown), "lost: {:?}", ledger.there.difference(&shown));
    assert!(ledger.gone.is_disjoint(&shown), "came back: {:?}", ledger.gone.intersection(&shown));
    let env = owner.get(env_path).expect(200).json();
    let number = |name: &str| {
        let all: &Vec<Value> = env["env"].as_array().unwrap();
        let entry = all.iter().find(|e| e["name"] == name);
        entry.map_or(0, |e| e["value"].as_str().unwrap().parse::<u64>().unwrap())
    };
    assert_eq!(number("LEFT"), number("RIGHT"), "half a write");
    assert!((ledger.acknowledged..=ledger.sent).contains(&number("LEFT")), "{env}");
    ledger.sent = number("LEFT");
    ledger.acknowledged = ledger.sent;
    for id in shown.iter().filter(|id| *id != fixed) {
        assert!(owner.delete(&format!("/api/apps/{id}")).status < 300);
    }
    ledger.there.clear();
    ledger.gone.clear();
}

#[test]
fn p27_no_kill_loses_what_was_acknowledged_or_shows_half_of_it() {
    const KILLS: u32 = 200;
    let mut server = Server::start();
    let fixed = first_app(&server, "fixed", None);
    let env_path = format!("/api/apps/{fixed}/env");
    let mut ledger = Ledger::default();
    let mut written = 0;
    for _ in 0..KILLS {
        let count = AtomicU64::new(0);
        let client = server.owner();
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| write_until_killed(client, &env_path, &mut ledger, &count));
            // A moment at random: within the first dozen writes, and anywhere within one.
            let [writes, micros, more] = random::<3>();
            crate::harness::until("some writes", Duration::from_secs(20), || {
                count.load(Ordering::Relaxed) >= u64::from(writes % 12) || writer.is_finished()
            });
            let_pass(Duration::from_micros(u64::from(micros) * 16 + u64::from(more)));
            server.kill9();
        });
        written += count.load(Ordering::Relaxed);
        let setup = server.setup().clone();
        server = setup.start();
        compare(&mut server.owner(), &env_path, &mut ledger, &fixed);
    }
    assert!(written > u64::from(KILLS), "only {written} writes");
    let database = crate::harness::sealed::Database::of(server.stop());
    assert_eq!(database.text("PRAGMA integrity_check"), "ok");
}
