//! What the plan does on machines of every kind.

use super::facts::Facts;
use super::layout::{APPARMOR, DATA, HOME, SERVICE, SOCKET, places};
use super::place::{Place, What};
use super::plan::{Step, install, uninstall};
use crate::config::{Config, FILE, PROGRAM};

const START: &str = "systemctl enable --now better-paas.socket better-paas.service";
const RESTART: &str = "systemctl restart better-paas.service";

fn config(pairs: &[(&str, &str)]) -> Config {
    Config::from_env(|name| pairs.iter().find(|(n, _)| *n == name).map(|(_, v)| v.into())).unwrap()
}

/// Everything that an installation has.
fn all(pairs: &[(&str, &str)], systemd: u32, is_there: &dyn Fn(&str) -> bool) -> Vec<Place> {
    places(&config(pairs), b"the program".to_vec(), Some(systemd), is_there)
}

/// A fresh Debian 13.
fn fresh() -> Facts {
    Facts {
        systemd: Some(257),
        lacks_packages: vec!["bubblewrap", "caddy"],
        caddy_is_enabled: false,
        caddy_is_configured: false,
        has_user: false,
        differing: all(&[], 257, &|_| false),
        is_up: false,
        settings_are_newer: false,
    }
}

/// The same with everything done, but for these places.
fn installed_but(paths: &[&str]) -> Facts {
    let mut differing = all(&[], 257, &|_| false);
    differing.retain(|place| paths.contains(&place.path));
    Facts { lacks_packages: Vec::new(), has_user: true, differing, is_up: true, ..fresh() }
}

fn lines(steps: &[Step]) -> Vec<String> {
    steps.iter().map(ToString::to_string).collect()
}

#[track_caller]
fn planned(facts: &Facts) -> Vec<String> {
    lines(&install(facts).unwrap_or_else(|why| panic!("{why}")))
}

#[track_caller]
fn refused(facts: &Facts) -> String {
    install(facts).err().expect("a reason")
}

/// The text of a file.
fn text(places: &[Place], path: &str) -> String {
    let place = places.iter().find(|place| place.path == path).expect("a place");
    let What::File(content) = &place.what else { panic!("{place} is no file") };
    String::from_utf8(content.to_vec()).unwrap()
}

#[test]
fn a_fresh_machine_gets_everything_in_order_and_a_second_run_has_nothing_to_do() {
    assert_eq!(
        planned(&fresh()),
        [
            "apt-get update -q",
            "apt-get install -y -q --no-install-recommends bubblewrap caddy",
            "systemctl disable --now caddy.service",
            "useradd --system --add-subids-for-system --user-group --no-create-home --home-dir \
             /opt/better-paas/data --shell /usr/sbin/nologin paas",
            "directory /opt/better-paas (root:root, 0755)",
            "file /opt/better-paas/server (root:root, 0755)",
            "file /opt/better-paas/firewall (root:root, 0755)",
            "link /usr/local/bin/better-paas to /opt/better-paas/server",
            "file /etc/systemd/system/better-paas.socket (root:root, 0644)",
            "file /etc/systemd/system/better-paas.service (root:root, 0644)",
            "directory /opt/better-paas/data (paas:paas, 0700)",
            "file /etc/better-paas.conf (root:paas, 0640)",
            "find /opt/better-paas -maxdepth 1 -name server.* ! -user root -delete",
            "systemctl daemon-reload",
            "systemctl stop better-paas.socket better-paas.service",
            START,
        ]
    );
    assert_eq!(planned(&installed_but(&[])), [""; 0]);
}

#[test]
fn p36_everything_but_the_data_is_roots_and_nobody_else_may_write_it() {
    // Ubuntu has one place more.
    let places = all(&[], 257, &|path| path.starts_with("/proc/"));
    assert_eq!(places.len(), 9);
    for place in places.iter().filter(|place| place.path != DATA) {
        assert!(place.owner.starts_with("root:"), "{place}");
        assert!(matches!(place.what, What::Link(_)) || place.mode & 0o022 == 0, "{place}");
    }
}

#[test]
fn what_differs_is_mended_and_the_service_started_again_as_little_as_can_be() {
    let ends = |facts: &Facts, line: &str| assert_eq!(planned(facts).last().unwrap(), line);
    ends(&installed_but(&[PROGRAM]), RESTART);
    ends(&installed_but(&[SERVICE]), RESTART);
    ends(&Facts { settings_are_newer: true, ..installed_but(&[]) }, RESTART);
    ends(&Facts { is_up: false, ..installed_but(&[]) }, START);
    // Mended without a restart.
    let planted = "find /opt/better-paas -maxdepth 1 -name server.* ! -user root -delete";
    let home = planned(&installed_but(&[HOME]));
    assert_eq!(home, ["directory /opt/better-paas (root:root, 0755)", planted]);
    // Another address: nobody may have the old one any more.
    let facts = installed_but(&[SOCKET]);
    let stop = "systemctl stop better-paas.socket better-paas.service";
    assert_eq!(planned(&facts)[1..], ["systemctl daemon-reload", stop, START]);
}

#[test]
fn what_the_owner_has_written_or_moved_stays() {
    let places = all(&[], 257, &|path| [FILE, DATA].contains(&path));
    assert!(!places.iter().any(|place| [FILE, DATA].contains(&place.path)));
}

#[test]
fn the_units_follow_the_settings() {
    let with = |pairs: &[(&str, &str)]| all(pairs, 257, &|_| false);
    let places = with(&[("LISTEN_ADDR", ":9000"), ("HTTP_PORT", "8081")]);
    assert!(text(&places, SOCKET).contains("\nListenStream=9000\nBindIPv6Only=both\n"));
    assert!(text(&places, SERVICE).contains("=-+/opt/better-paas/firewall paas :9000 :8081\n"));
    let places = with(&[("LISTEN_ADDR", "[::1]:9000")]);
    assert!(text(&places, SOCKET).contains("\nListenStream=[::1]:9000\n"));
}

#[test]
fn the_service_has_what_the_machine_can_give_it() {
    let new = text(&all(&[], 257, &|_| false), SERVICE);
    assert!(new.contains("\nDelegate=yes\nDelegateSubgroup=server\n"), "{new}");
    assert!(!new.contains("\nLoadCredential="), "a file that is not there would stop it");
    let old = text(&all(&[], 252, &|path| path == "/etc/better-paas.key"), SERVICE);
    assert!(!old.contains("\nDelegate"), "systemd 252 could not start it again beside apps");
    assert!(old.contains("\nLoadCredential=better_paas_secret_key:/etc/better-paas.key\n"));
    // newuidmap is set-uid: with one of these no app has a user of its own.
    let implying = "NoNew PrivateDev PrivateUsers ProtectK ProtectC ProtectHostn RestrictA \
                    RestrictN RestrictR RestrictS LockP MemoryDeny SystemCall ProcSubset";
    for line in new.lines() {
        assert!(!implying.split(' ').any(|name| line.starts_with(name)), "{line}");
    }
    let ubuntu = all(&[], 257, &|path| path.starts_with("/proc/"));
    assert!(text(&ubuntu, APPARMOR).contains(PROGRAM));
    let facts = Facts { differing: ubuntu, ..fresh() };
    let loads = "apparmor_parser --replace /etc/apparmor.d/better-paas".to_owned();
    assert!(planned(&facts).contains(&loads));
}

#[test]
fn a_machine_on_which_it_cannot_be_is_refused_with_the_reason() {
    assert!(refused(&Facts { systemd: None, ..fresh() }).contains("systemd"));
    let old = refused(&Facts { systemd: Some(249), ..fresh() });
    assert!(old.contains("Debian 12") && old.contains("--map-users"), "{old}");
    let caddy = |caddy_is_configured| Facts {
        caddy_is_enabled: true,
        caddy_is_configured,
        ..installed_but(&[])
    };
    assert!(refused(&caddy(true)).contains("systemctl disable --now caddy"));
    assert_eq!(planned(&caddy(false)), ["systemctl disable --now caddy.service"]);
}

#[test]
fn uninstalling_leaves_the_data_and_the_settings_unless_it_is_to_purge() {
    let not_apparmor = |path: &str| path != APPARMOR;
    let kept = lines(&uninstall(false, &not_apparmor));
    assert_eq!(
        kept,
        [
            "systemctl disable --now better-paas.socket better-paas.service",
            "systemctl kill --signal=KILL better-paas.service",
            "/opt/better-paas/firewall remove",
            "rm -f /etc/systemd/system/better-paas.socket /etc/systemd/system/better-paas.service \
             /etc/apparmor.d/better-paas /usr/local/bin/better-paas",
            "find /opt/better-paas -maxdepth 1 -type f -delete",
            "systemctl daemon-reload",
        ]
    );
    let purged = lines(&uninstall(true, &not_apparmor));
    assert!(purged.starts_with(&kept));
    assert_eq!(
        purged[kept.len()..],
        ["rm -rf /opt/better-paas /etc/better-paas.conf", "userdel paas"]
    );
    assert_eq!(lines(&uninstall(true, &|_| false)), [""; 0]);
}
