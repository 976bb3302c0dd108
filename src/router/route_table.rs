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

use crate::data_dir::DataDir;
use crate::model::{AppId, DeployId};
use crate::sync::lock;
use std::collections::BTreeSet;
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
    fn suffix(&self) -> String {
        match self {
            Self::Process(port) => format!("p.{port}"),
            Self::Files(app, deploy) => format!("s.{app}.{deploy}"),
            Self::Down => "d".to_owned(),
        }
    }
}

/// One change that was made, and can be taken back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteEntry {
    app: AppId,
    /// The file's name: what the router answers when it has seen the change.
    pub name: String,
    /// Whether it was made now; one that was there before is not taken back.
    fresh: bool,
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

    /// Leads an app's requests somewhere else, at once.
    ///
    /// # Errors
    /// When the file cannot be made; everything is then as it was.
    pub fn point(&self, app: &AppId, target: &Target) -> io::Result<RouteEntry> {
        let _held = lock(&self.changing);
        self.point_now(app, target)
    }

    fn point_now(&self, app: &AppId, target: &Target) -> io::Result<RouteEntry> {
        let dir = self.apps.join(app.as_str());
        DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
        let names = sorted(&dir)?;
        let suffix = target.suffix();
        if let Some(name) = names.first()
            && name.split_once('.').is_some_and(|(_, rest)| rest == suffix)
        {
            return Ok(RouteEntry { app: app.clone(), name: name.clone(), fresh: false });
        }
        let last = names.first().and_then(|name| name.split('.').next()?.parse::<u64>().ok());
        let number = last.map_or(FIRST, |n| n.saturating_sub(1));
        let name = format!("{number:0DIGITS$}.{suffix}");
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(dir.join(&name))?;
        for old in names.iter().skip(KEPT - 1) {
            gone_is_fine(fs::remove_file(dir.join(old)))?;
        }
        Ok(RouteEntry { app: app.clone(), name, fresh: true })
    }

    /// Whether another change of the same app has come after this one.
    #[must_use]
    pub fn is_overtaken(&self, entry: &RouteEntry) -> bool {
        let names = sorted(&self.apps.join(entry.app.as_str())).unwrap_or_default();
        names.first().is_some_and(|first| *first != entry.name)
    }

    /// Undoes a change: what was in force before is in force again.
    ///
    /// # Errors
    /// When the file cannot be removed.
    pub fn take_back(&self, entry: &RouteEntry) -> io::Result<()> {
        if !entry.fresh {
            return Ok(());
        }
        let _held = lock(&self.changing);
        gone_is_fine(fs::remove_file(self.apps.join(entry.app.as_str()).join(&entry.name)))
    }

    /// Gives an app these host names, and takes all others from it.
    ///
    /// # Errors
    /// When a link cannot be made or removed.
    pub fn name(&self, app: &AppId, hosts: &[String]) -> io::Result<()> {
        let _held = lock(&self.changing);
        self.name_now(app, hosts)
    }

    fn name_now(&self, app: &AppId, hosts: &[String]) -> io::Result<()> {
        let target = Path::new("../apps").join(app.as_str());
        let dir = self.apps.join(app.as_str());
        if !hosts.is_empty() && (!dir.is_dir() || sorted(&dir)?.is_empty()) {
            self.point_now(app, &Target::Down)?;
        }
        for host in hosts {
            let link = self.hosts.join(host);
            if fs::read_link(&link).is_ok_and(|t| t == target) {
                continue;
            }
            // No host begins with a dot, so nobody asks for this one.
            let fresh = self.hosts.join(format!(".{host}"));
            gone_is_fine(fs::remove_file(&fresh))?;
            symlink(&target, &fresh)?;
            fs::rename(&fresh, &link)?;
        }
        for name in sorted(&self.hosts)? {
            let link = self.hosts.join(&name);
            if !hosts.contains(&name) && fs::read_link(&link).is_ok_and(|t| t == target) {
                gone_is_fine(fs::remove_file(&link))?;
            }
        }
        Ok(())
    }

    /// Has these hosts served over HTTPS, and no others. Permission to ask for a certificate
    /// comes with the host, and goes with it; in between it is [`RouteTable::permit`]'s business.
    ///
    /// # Errors
    /// When a file cannot be made or removed.
    pub fn encrypt(&self, hosts: &BTreeSet<String>) -> io::Result<()> {
        let _held = lock(&self.changing);
        let mut there = BTreeSet::new();
        for name in sorted(&self.encrypted)?.into_iter().chain(sorted(&self.permitted)?) {
            if hosts.contains(&name) {
                there.insert(name);
                continue;
            }
            gone_is_fine(fs::remove_file(self.permitted.join(&name)))?;
            gone_is_fine(fs::remove_file(self.encrypted.join(&name)))?;
        }
        for host in hosts.difference(&there) {
            mark(&self.permitted.join(host))?;
            mark(&self.encrypted.join(host))?;
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

    /// Forgets an app: its names first, so that none leads nowhere.
    ///
    /// # Errors
    /// When something cannot be removed.
    pub fn forget(&self, app: &AppId) -> io::Result<()> {
        let _held = lock(&self.changing);
        self.name_now(app, &[])?;
        gone_is_fine(fs::remove_dir_all(self.apps.join(app.as_str())))
    }

    /// Forgets every app that is not among these.
    ///
    /// # Errors
    /// As [`RouteTable::forget`].
    pub fn keep_only(&self, apps: &[AppId]) -> io::Result<()> {
        for name in sorted(&self.apps)? {
            match AppId::parse(&name) {
                Ok(app) if apps.contains(&app) => {}
                Ok(app) => self.forget(&app)?,
                Err(_) => fs::remove_dir_all(self.apps.join(name))?,
            }
        }
        for name in sorted(&self.hosts)? {
            let link = self.hosts.join(&name);
            if name.starts_with('.') || !link.exists() {
                gone_is_fine(fs::remove_file(link))?;
            }
        }
        Ok(())
    }
}

fn mark(path: &Path) -> io::Result<()> {
    OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path).map(drop)
}

fn gone_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
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

    #[test]
    fn the_newest_change_comes_first_and_the_one_before_stays_for_a_while() {
        let (table, _dir) = table();
        let shop = app("aaaaaaaaaa");
        table.name(&shop, &["shop.localhost".to_owned()]).unwrap();
        for port in 20_000..20_040 {
            table.point(&shop, &Target::Process(port)).unwrap();
            assert_eq!(found(&table, "shop.localhost"), Some(format!("p.{port}")));
        }
        let names = sorted(&table.apps.join(shop.as_str())).unwrap();
        assert_eq!(names.len(), KEPT);
        let again = table.point(&shop, &Target::Process(20_039)).unwrap();
        assert_eq!(again.name, names[0], "nothing changes when nothing is to change");
        table.take_back(&again).unwrap();
        assert_eq!(found(&table, "shop.localhost").as_deref(), Some("p.20039"));
    }

    #[test]
    fn a_change_that_is_taken_back_leaves_what_was_before() {
        let (table, _dir) = table();
        let shop = app("aaaaaaaaaa");
        table.name(&shop, &["shop.localhost".to_owned()]).unwrap();
        assert_eq!(found(&table, "shop.localhost").as_deref(), Some("d"), "a new app is down");
        let deploy = DeployId::parse("bbbbbbbbbb").unwrap();
        let entry = table.point(&shop, &Target::Files(shop.clone(), deploy)).unwrap();
        assert_eq!(found(&table, "shop.localhost").as_deref(), Some("s.aaaaaaaaaa.bbbbbbbbbb"));
        table.take_back(&entry).unwrap();
        assert_eq!(found(&table, "shop.localhost").as_deref(), Some("d"));
    }

    #[test]
    fn a_change_that_was_overtaken_is_made_again() {
        let (table, _dir) = table();
        let shop = app("aaaaaaaaaa");
        table.point(&shop, &Target::Process(1)).unwrap();
        let entry = table.point(&shop, &Target::Process(2)).unwrap();
        assert!(!table.is_overtaken(&entry));
        table.point(&shop, &Target::Down).unwrap();
        assert!(table.is_overtaken(&entry));
        let again = table.point(&shop, &Target::Process(2)).unwrap();
        assert!(table.is_overtaken(&entry) && !table.is_overtaken(&again));
        table.forget(&shop).unwrap();
        assert!(!table.is_overtaken(&again), "an app that is gone is not brought back");
    }

    #[test]
    fn changes_of_one_app_at_once_neither_fail_nor_mix() {
        let (table, _dir) = table();
        let shop = app("aaaaaaaaaa");
        let all = ["a.test".to_owned(), "b.test".to_owned()];
        std::thread::scope(|scope| {
            for thread in 0..4_u16 {
                let (table, shop, all) = (&table, &shop, &all);
                scope.spawn(move || {
                    for turn in 0..100 {
                        let port = 20_000 + 1000 * thread + turn;
                        let entry = table.point(shop, &Target::Process(port)).unwrap();
                        table.name(shop, &all[..1 + usize::from(turn % 2)]).unwrap();
                        match turn % 10 {
                            3 => table.take_back(&entry).unwrap(),
                            7 => table.forget(shop).unwrap(),
                            _ => {}
                        }
                    }
                });
            }
        });
        table.point(&shop, &Target::Process(1)).unwrap();
        table.name(&shop, &all).unwrap();
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
        table.name(&one, &["a.test".into(), "b.test".into()]).unwrap();
        table.name(&two, &["b.test".into(), "c.test".into()]).unwrap();
        let seen = |host| found(&table, host);
        assert_eq!(seen("a.test").as_deref(), Some("p.1"));
        assert_eq!(seen("b.test").as_deref(), Some("p.2"));
        table.name(&one, &[]).unwrap();
        assert_eq!(seen("a.test"), None);
        assert_eq!(seen("b.test").as_deref(), Some("p.2"), "not ours to take");
        table.keep_only(&[one]).unwrap();
        assert_eq!((seen("b.test"), seen("c.test")), (None, None));
        assert_eq!(sorted(&table.hosts).unwrap(), Vec::<String>::new());
    }
}
