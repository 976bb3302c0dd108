//! Which host leads to what: a directory that the router looks into with each request.
//!
//! Changing a router's configuration makes it start all over inside, and Debian's
//! Caddy then cuts every upgraded connection, of all apps. So what changes with a
//! deploy is not in the configuration. It is the name of an empty file:
//!
//! ```text
//! apps/<app id>/9999999998.p.20417      the process at this loopback port
//!               9999999997.s.<app>.<deploy>   these published files
//!               9999999996.d            nothing: the app is down
//! hosts/shop.example.com -> ../apps/<app id>
//! https/shop.example.com        it is served over HTTPS
//! permitted/shop.example.com    the router may ask for its certificate
//! ```
//!
//! The router takes the first name in alphabetical order. A switch is thus one
//! `open`, seen whole or not at all, and nothing but this app knows of it.

use crate::data_dir::{DataDir, gone_is_fine};
use crate::model::{AppId, DeployId, Wanted};
use crate::store::App;
use crate::sync::lock;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirBuilder, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// The first number of an app; they count down, so that the newest comes first.
const FIRST: u64 = 9_999_999_999;

/// Digits of a number, so that alphabetical order is theirs.
const DIGITS: usize = 10;

/// Names that stay: the one in force, and the one before it, which a request that
/// has read the directory a moment ago may still look for.
const KEPT: usize = 2;

/// The directories with a name for each host, in the router's own.
pub const HOSTS: &str = "hosts";
pub const ENCRYPTED: &str = "https";
pub const PERMITTED: &str = "permitted";

/// Where an app's requests go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// To a process, at this port of 127.0.0.1.
    Process(u16),
    /// To the published files of a deploy.
    Files(AppId, DeployId),
    /// Nowhere: it does not run.
    Down,
}

impl Target {
    /// Where the requests of an app go, as the database knows it.
    pub fn of(app: &App) -> Self {
        let files = app.live_release.as_ref().filter(|_| app.is_static);
        match (app.wanted, files, app.port()) {
            (Wanted::Running, Some(live), _) => Self::Files(app.id.clone(), live.clone()),
            (Wanted::Running, None, Some(port)) => Self::Process(port),
            (Wanted::Stopped, ..) | (Wanted::Running, None, None) => Self::Down,
        }
    }

    fn suffix(&self) -> String {
        match self {
            Self::Process(port) => format!("p.{port}"),
            Self::Files(app, deploy) => format!("s.{app}.{deploy}"),
            Self::Down => "d".to_owned(),
        }
    }
}

/// The directories.
#[derive(Debug)]
pub struct RouteTable {
    apps: PathBuf,
    hosts: PathBuf,
    encrypted: PathBuf,
    permitted: PathBuf,
    /// Held while anything changes: two changes with the same number have no order, and
    /// deploys, the supervisor and requests may change the same app at once.
    changing: Mutex<()>,
}

impl RouteTable {
    /// The table inside a data directory.
    ///
    /// # Errors
    /// When its directories cannot be made.
    pub fn open(data: &DataDir) -> io::Result<Self> {
        let dir = |name: &str| data.make_dir(&format!("router/{name}"));
        Ok(Self {
            apps: dir("apps")?,
            hosts: dir(HOSTS)?,
            encrypted: dir(ENCRYPTED)?,
            permitted: dir(PERMITTED)?,
            changing: Mutex::default(),
        })
    }

    /// Leads an app's requests somewhere else, at once. Answers the file's name, which the
    /// router answers when it has seen the change, and whether it was made now: one that was
    /// there before is not to be taken back.
    ///
    /// # Errors
    /// When the file cannot be made; everything is then as it was.
    pub fn point(&self, app: &AppId, target: &Target) -> io::Result<(String, bool)> {
        let _held = lock(&self.changing);
        self.point_now(app, target)
    }

    fn point_now(&self, app: &AppId, target: &Target) -> io::Result<(String, bool)> {
        let dir = self.apps.join(app.as_str());
        DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
        let names = sorted(&dir)?;
        let suffix = target.suffix();
        if let Some(name) = names.first()
            && name.split_once('.').is_some_and(|(_, rest)| rest == suffix)
        {
            return Ok((name.clone(), false));
        }
        let last = names.first().and_then(|name| name.split('.').next()?.parse::<u64>().ok());
        let number = last.map_or(FIRST, |n| n.saturating_sub(1));
        let name = format!("{number:0DIGITS$}.{suffix}");
        mark(&dir.join(&name))?;
        for old in names.iter().skip(KEPT - 1) {
            gone_is_fine(fs::remove_file(dir.join(old)))?;
        }
        Ok((name, true))
    }

    /// Undoes a change by its name: what was in force before is in force again.
    ///
    /// # Errors
    /// When the file cannot be removed.
    pub fn take_back(&self, app: &AppId, name: &str) -> io::Result<()> {
        let _held = lock(&self.changing);
        gone_is_fine(fs::remove_file(self.apps.join(app.as_str()).join(name)))
    }

    /// Leads each of these host names to its app, and no other.
    ///
    /// # Errors
    /// When a link cannot be made or removed.
    pub fn name(&self, hosts: &BTreeMap<String, AppId>) -> io::Result<()> {
        let _held = lock(&self.changing);
        for name in sorted(&self.hosts)?.iter().filter(|name| !hosts.contains_key(*name)) {
            gone_is_fine(fs::remove_file(self.hosts.join(name)))?;
        }
        // One that cannot be named keeps no other from its name.
        let mut failed = Ok(());
        for (host, app) in hosts {
            failed = failed.and(self.name_one(host, app));
        }
        failed
    }

    fn name_one(&self, host: &str, app: &AppId) -> io::Result<()> {
        let target = Path::new("../apps").join(app.as_str());
        let link = self.hosts.join(host);
        if fs::read_link(&link).is_ok_and(|there| there == target) {
            return Ok(());
        }
        if sorted(&self.apps.join(app.as_str())).unwrap_or_default().is_empty() {
            self.point_now(app, &Target::Down)?;
        }
        // No host begins with a dot, so nobody asks for this one.
        let fresh = self.hosts.join(format!(".{host}"));
        gone_is_fine(fs::remove_file(&fresh))?;
        symlink(&target, &fresh)?;
        fs::rename(&fresh, &link)
    }

    /// Has these hosts served over HTTPS, and no others. Permission to ask for a certificate
    /// comes with the host, and goes with it; in between it is [`RouteTable::permit`]'s business.
    ///
    /// # Errors
    /// When a file cannot be made or removed.
    pub fn encrypt(&self, hosts: &BTreeSet<String>) -> io::Result<()> {
        let _held = lock(&self.changing);
        let there: BTreeSet<String> = sorted(&self.encrypted)?.into_iter().collect();
        // In this order none is permitted that is not there, whenever it is interrupted.
        for host in there.difference(hosts) {
            gone_is_fine(fs::remove_file(self.permitted.join(host)))?;
            gone_is_fine(fs::remove_file(self.encrypted.join(host)))?;
        }
        for host in hosts.difference(&there) {
            mark(&self.encrypted.join(host))?;
            mark(&self.permitted.join(host))?;
        }
        Ok(())
    }

    /// Says whether the router may ask for the certificate of a host. One that is no longer
    /// there gets no permission.
    ///
    /// # Errors
    /// When the file cannot be made or removed.
    pub fn permit(&self, host: &str, may: bool) -> io::Result<()> {
        let _held = lock(&self.changing);
        if may && self.encrypted.join(host).exists() {
            return mark(&self.permitted.join(host));
        }
        gone_is_fine(fs::remove_file(self.permitted.join(host)))
    }

    /// Forgets where an app's requests go. A name that still leads to it leads nowhere.
    ///
    /// # Errors
    /// When something cannot be removed.
    pub fn forget(&self, app: &AppId) -> io::Result<()> {
        let _held = lock(&self.changing);
        gone_is_fine(fs::remove_dir_all(self.apps.join(app.as_str())))
    }

    /// Forgets every app that is not known by its id.
    ///
    /// # Errors
    /// As [`RouteTable::forget`].
    pub fn keep_only(&self, is_known: impl Fn(&str) -> bool) -> io::Result<()> {
        let _held = lock(&self.changing);
        let mut unknown = sorted(&self.apps)?.into_iter().filter(|name| !is_known(name));
        unknown.try_for_each(|name| fs::remove_dir_all(self.apps.join(name)))
    }
}

fn mark(path: &Path) -> io::Result<()> {
    OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path).map(drop)
}

/// The names in a directory, in the order in which the router sees them.
fn sorted(dir: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir)? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort_unstable();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> (RouteTable, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::open(&dir.path().join("data")).unwrap();
        (RouteTable::open(&data).unwrap(), dir)
    }

    /// What the router would find for a host.
    fn found(table: &RouteTable, host: &str) -> Option<String> {
        let names = sorted(&table.hosts.join(host)).ok()?;
        names.first().and_then(|n| n.split_once('.')).map(|(_, rest)| rest.to_owned())
    }

    fn app(text: &str) -> AppId {
        AppId::parse(text).unwrap()
    }

    fn name(table: &RouteTable, hosts: &[(&str, &AppId)]) {
        let hosts = hosts.iter().map(|(host, app)| ((*host).to_owned(), (*app).clone()));
        table.name(&hosts.collect()).unwrap();
    }

    #[test]
    fn the_newest_change_comes_first_and_the_one_before_stays_for_a_while() {
        let (table, _dir) = table();
        let shop = app("aaaaaaaaaa");
        name(&table, &[("shop.localhost", &shop)]);
        for port in 20_000..20_040 {
            table.point(&shop, &Target::Process(port)).unwrap();
            assert_eq!(found(&table, "shop.localhost"), Some(format!("p.{port}")));
        }
        let names = sorted(&table.apps.join(shop.as_str())).unwrap();
        assert_eq!(names.len(), KEPT);
        let again = table.point(&shop, &Target::Process(20_039)).unwrap();
        assert_eq!(again, (names[0].clone(), false), "nothing changes when nothing is to change");
    }

    #[test]
    fn a_change_that_is_taken_back_leaves_what_was_before() {
        let (table, _dir) = table();
        let shop = app("aaaaaaaaaa");
        name(&table, &[("shop.localhost", &shop)]);
        assert_eq!(found(&table, "shop.localhost").as_deref(), Some("d"), "a new app is down");
        let deploy = DeployId::parse("bbbbbbbbbb").unwrap();
        let (made, fresh) = table.point(&shop, &Target::Files(shop.clone(), deploy)).unwrap();
        assert_eq!(found(&table, "shop.localhost").as_deref(), Some("s.aaaaaaaaaa.bbbbbbbbbb"));
        assert!(fresh);
        table.take_back(&shop, &made).unwrap();
        assert_eq!(found(&table, "shop.localhost").as_deref(), Some("d"));
    }

    #[test]
    fn a_change_that_was_overtaken_is_made_again() {
        let (table, _dir) = table();
        let shop = app("aaaaaaaaaa");
        let first = table.point(&shop, &Target::Process(1)).unwrap();
        assert_eq!(table.point(&shop, &Target::Process(1)).unwrap(), (first.0.clone(), false));
        table.point(&shop, &Target::Down).unwrap();
        let again = table.point(&shop, &Target::Process(1)).unwrap();
        assert!(again.1 && again.0 < first.0, "it comes before the other");
    }

    #[test]
    fn changes_of_one_app_at_once_neither_fail_nor_mix() {
        let (table, _dir) = table();
        let shop = app("aaaaaaaaaa");
        let all = ["a.test", "b.test"];
        std::thread::scope(|scope| {
            for thread in 0..4_u16 {
                let (table, shop) = (&table, &shop);
                scope.spawn(move || {
                    for turn in 0..100 {
                        let port = 20_000 + 1000 * thread + turn;
                        let (made, _) = table.point(shop, &Target::Process(port)).unwrap();
                        name(table, &all.map(|host| (host, shop))[..1 + usize::from(turn % 2)]);
                        match turn % 10 {
                            3 => table.take_back(shop, &made).unwrap(),
                            7 => table.forget(shop).unwrap(),
                            _ => {}
                        }
                    }
                });
            }
        });
        table.point(&shop, &Target::Process(1)).unwrap();
        name(&table, &all.map(|host| (host, &shop)));
        let names = sorted(&table.apps.join(shop.as_str())).unwrap();
        assert!(names.len() <= KEPT, "{names:?}");
        assert_eq!(found(&table, "b.test").as_deref(), Some("p.1"));
        assert_eq!(sorted(&table.hosts).unwrap(), all);
    }

    #[test]
    fn a_host_is_permitted_a_certificate_for_as_long_as_it_is_there() {
        let (table, _dir) = table();
        let set = |hosts: &[&str]| hosts.iter().map(|h| (*h).to_owned()).collect();
        let there = |dir: &Path| sorted(dir).unwrap();
        table.encrypt(&set(&["a.test", "b.test"])).unwrap();
        assert_eq!(there(&table.permitted), ["a.test", "b.test"]);
        table.permit("a.test", false).unwrap();
        table.encrypt(&set(&["a.test", "c.test"])).unwrap();
        assert_eq!(there(&table.encrypted), ["a.test", "c.test"]);
        assert_eq!(there(&table.permitted), ["c.test"], "what was taken is not given back");
        table.permit("a.test", true).unwrap();
        table.permit("b.test", true).unwrap();
        assert_eq!(there(&table.permitted), ["a.test", "c.test"], "b.test is gone");
        table.encrypt(&set(&[])).unwrap();
        assert!(there(&table.encrypted).is_empty() && there(&table.permitted).is_empty());
    }

    #[test]
    fn names_move_between_apps_and_go_with_them() {
        let (table, _dir) = table();
        let (one, two) = (app("aaaaaaaaaa"), app("bbbbbbbbbb"));
        table.point(&one, &Target::Process(1)).unwrap();
        table.point(&two, &Target::Process(2)).unwrap();
        name(&table, &[("a.test", &one), ("b.test", &two), ("c.test", &two)]);
        let seen = |host| found(&table, host);
        assert_eq!(seen("a.test").as_deref(), Some("p.1"));
        assert_eq!(seen("b.test").as_deref(), Some("p.2"));
        name(&table, &[("b.test", &one), ("c.test", &two)]);
        assert_eq!(seen("a.test"), None);
        assert_eq!(seen("b.test").as_deref(), Some("p.1"));
        table.keep_only(|id| id == one.as_str()).unwrap();
        assert_eq!((seen("b.test").as_deref(), seen("c.test")), (Some("p.1"), None));
        name(&table, &[]);
        assert_eq!(sorted(&table.hosts).unwrap(), Vec::<String>::new());
    }
}
