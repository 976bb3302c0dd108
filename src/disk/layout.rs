//! Where an app's files are: its cache, its data, its releases, and what is to be removed.

use super::app_users::AppUsers;
use super::removal::{random_name, remove_tree};
use super::space::Space;
use crate::data_dir::{DataDir, is_abandoned, named, replace};
use crate::model::{AppId, DeployId, Job, ProcessId, ProcessName};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Where everything of every app is, inside the data directory.
const APPS: &str = "apps";

/// Where the published files of static sites are: the router's own.
const SITES: &str = "sites";

/// Where the ends of an app's processes are noted, inside the app's directory.
const EXITS: &str = "exits";

/// Where tools are that apps share, inside a sandbox.
pub const TOOLS_INSIDE: &str = "/tools";

/// Where the Pythons among them are, each in a directory with the name of the tool that had it
/// installed: a Python knows where it is, and could not be moved there when it is whole.
pub const PYTHONS: &str = "pythons";

/// And in the data directory.
const TOOLS: &str = "tools";

/// Where a repository is looked at that is no app yet.
const LOOK: &str = "apps/look";

/// Where those who install them work; no app has such a short name.
const INSTALLERS: &str = "apps/tools";

/// What is needed to start a release again as it was proved. It lies beside the
/// release, where the app cannot reach it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartSpec {
    /// The directory of the repository that holds the app.
    pub root: String,
    /// The command to run once before the release is first started; not kept.
    #[serde(skip)]
    pub release: Option<String>,
    /// The start command; `None` for a static site, whose files are published, and for workers
    /// alone.
    pub start: Option<String>,
    /// Its processes without a port, with their commands.
    #[serde(default)]
    pub processes: BTreeMap<ProcessName, String>,
    /// Whether those are all that there is of it.
    #[serde(default)]
    pub workers_only: bool,
    /// Directories with the tools that it needs, the first one first.
    #[serde(default)]
    pub tools: Vec<String>,
    /// What it is told about itself.
    #[serde(default)]
    pub about: Vec<(String, String)>,
    /// What is run at times of its own while it is live.
    #[serde(default)]
    pub jobs: Vec<Job>,
}

/// The paths in one data directory.
#[derive(Debug, Clone)]
pub struct Layout {
    data: DataDir,
}

impl Layout {
    /// The paths in this data directory.
    pub const fn new(data: DataDir) -> Self {
        Self { data }
    }

    /// The file whose time says when jobs were looked at last.
    pub fn jobs_clock(&self) -> PathBuf {
        self.data.join("jobs-clock")
    }

    /// Where all apps are.
    pub fn apps(&self) -> PathBuf {
        self.data.join(APPS)
    }

    /// Tools that apps share, which the machine lacks: `/tools` inside.
    pub fn tools(&self) -> PathBuf {
        self.data.join(TOOLS)
    }

    /// Makes the directory for tools, and gives it to the user who has no app.
    ///
    /// # Errors
    /// When that is not possible.
    pub fn prepare_tools(&self, users: AppUsers) -> io::Result<PathBuf> {
        let tools = self.data.make_dir(TOOLS)?;
        // All apps may look: from outside nobody gets past the directory above. Once it is given
        // away, only root can change this, and nobody needs to.
        let _ = fs::set_permissions(&tools, Permissions::from_mode(0o755));
        self.data.make_dir(&format!("{TOOLS}-used"))?;
        users.give(0, &[&tools])?;
        Ok(tools)
    }

    /// Makes an empty directory for what a tool's installer needs, and nobody after it.
    ///
    /// # Errors
    /// When that is not possible.
    pub fn prepare_installer(&self, users: AppUsers) -> io::Result<PathBuf> {
        self.discard(&self.data.join(INSTALLERS))?;
        let made = self.data.make_dir(INSTALLERS)?;
        users.give(0, &[&made])?;
        Ok(made)
    }

    /// The file whose time is that of the last use of a tool.
    pub fn tool_use(&self, name: &str) -> PathBuf {
        self.data.join(&format!("{TOOLS}-used")).join(name)
    }

    /// Makes an empty cache and an empty release for a repository that is no app yet.
    ///
    /// # Errors
    /// When that is not possible.
    pub fn look(&self, users: AppUsers) -> io::Result<(PathBuf, PathBuf)> {
        self.forget_look();
        let cache = self.data.make_dir(&format!("{LOOK}/repo"))?;
        let release = self.data.make_dir(&format!("{LOOK}/release"))?;
        users.give(0, &[&cache, &release])?;
        Ok((cache, release))
    }

    /// Removes them.
    pub fn forget_look(&self) {
        if let Err(error) = self.discard(&self.data.join(LOOK)) {
            log::warn!("what was looked at could not be removed: {error}");
        }
    }

    /// Something of an app's.
    fn of(&self, app: &AppId, name: &str) -> PathBuf {
        self.data.join(&format!("{APPS}/{app}/{name}"))
    }

    /// Where the published files of an app's releases are.
    fn sites(&self, app: &AppId) -> PathBuf {
        self.data.join(&format!("{SITES}/{app}"))
    }

    /// A release's directory.
    pub fn release(&self, app: &AppId, deploy: &DeployId) -> PathBuf {
        self.of(app, &format!("releases/{deploy}"))
    }

    /// What survives every deploy: `/data` inside.
    pub fn persistent(&self, app: &AppId) -> PathBuf {
        self.of(app, "data")
    }

    /// What builds keep for the next one: `/cache` inside.
    pub fn cache(&self, app: &AppId) -> PathBuf {
        self.of(app, "cache")
    }

    /// Where builds put what they do not keep: `/var/tmp` inside.
    pub fn temporary(&self, app: &AppId) -> PathBuf {
        self.of(app, "tmp")
    }

    /// The bare repository.
    pub fn repo(&self, app: &AppId) -> PathBuf {
        self.of(app, "repo")
    }

    /// Where the end of an app's process is noted, named by the port that the process
    /// has, or by what it is called: two processes of one app never share either.
    pub fn exit_file(&self, id: &ProcessId, port: Option<u16>) -> PathBuf {
        let name = port.map_or_else(|| id.to_string(), |port| port.to_string());
        self.of(&id.app, &format!("{EXITS}/{name}"))
    }

    /// Makes the directory for [`Layout::exit_file`].
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn prepare_exits(&self, app: &AppId) -> io::Result<()> {
        self.data.make_dir(&format!("{APPS}/{app}/{EXITS}")).map(drop)
    }

    /// Removes the notes on the ends of all processes that had a port but the one with this.
    pub fn discard_exits(&self, app: &AppId, but: Option<u16>) {
        let dir = self.of(app, EXITS);
        let ports = named(&dir, |name| name.parse::<u16>().ok());
        for port in ports.into_iter().filter(|port| Some(*port) != but) {
            let _ = fs::remove_file(dir.join(port.to_string()));
        }
    }

    /// Makes a directory for the files that each sandbox needs.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn etc(&self) -> io::Result<PathBuf> {
        self.data.make_dir("sandbox")
    }

    /// Makes what a deploy needs and gives it to the app's user: an empty release
    /// and temporary directory, and the cache, the data and the repository where
    /// they are not there yet.
    ///
    /// # Errors
    /// When that is not possible, mostly for lack of space or rights.
    pub fn prepare(
        &self,
        users: AppUsers,
        app: &AppId,
        slot: u16,
        deploy: &DeployId,
    ) -> io::Result<()> {
        for name in ["repo", "cache", "data", "releases"] {
            self.data.make_dir(&format!("{APPS}/{app}/{name}"))?;
        }
        let (release, temporary) = (self.release(app, deploy), self.temporary(app));
        for fresh in [&release, &temporary] {
            self.discard(fresh)?;
            fs::create_dir(fresh)?;
        }
        let (repo, cache, data) = (self.repo(app), self.cache(app), self.persistent(app));
        users.give(slot, &[&release, &temporary, &repo, &cache, &data])
    }

    /// Writes how to start a release again.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn keep_start_spec(
        &self,
        app: &AppId,
        deploy: &DeployId,
        spec: &StartSpec,
    ) -> io::Result<()> {
        replace(&self.start_spec_file(app, deploy), &serde_json::to_vec(spec)?)
    }

    /// How to start a release again; `None` when the release is not there.
    pub fn start_spec(&self, app: &AppId, deploy: &DeployId) -> Option<StartSpec> {
        if !self.release(app, deploy).is_dir() {
            return None;
        }
        serde_json::from_slice(&fs::read(self.start_spec_file(app, deploy)).ok()?).ok()
    }

    /// When a release was complete; `None` when it is not.
    pub fn completed(&self, app: &AppId, deploy: &DeployId) -> Option<SystemTime> {
        fs::metadata(self.start_spec_file(app, deploy)).ok()?.modified().ok()
    }

    /// Where a static site's published files are.
    pub fn site(&self, app: &AppId, deploy: &DeployId) -> PathBuf {
        self.sites(app).join(deploy.as_str())
    }

    /// A place for a site's files that is not there yet.
    ///
    /// # Errors
    /// When what is there cannot be put aside.
    pub fn fresh_site(&self, app: &AppId, deploy: &DeployId) -> io::Result<PathBuf> {
        self.data.make_dir(&format!("{SITES}/{app}"))?;
        let site = self.site(app, deploy);
        self.discard(&site)?;
        Ok(site)
    }

    fn start_spec_file(&self, app: &AppId, deploy: &DeployId) -> PathBuf {
        self.of(app, &format!("releases/{deploy}.json"))
    }

    /// The releases of an app that are there.
    pub fn releases(&self, app: &AppId) -> Vec<DeployId> {
        let ids = |name: &str| DeployId::parse(name.trim_end_matches(".json")).ok();
        named(&self.of(app, "releases"), ids)
    }

    /// When the newest release of an app was completed.
    pub fn built_at(&self, app: &AppId) -> Option<SystemTime> {
        self.releases(app).iter().filter_map(|deploy| self.completed(app, deploy)).max()
    }

    /// The releases of an app that no deploy has completed: nothing can be started there.
    pub fn unfinished(&self, app: &AppId) -> Vec<DeployId> {
        let mut releases = self.releases(app);
        releases.retain(|deploy| match fs::metadata(self.start_spec_file(app, deploy)) {
            Ok(meta) => meta.len() == 0,
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        });
        releases
    }

    /// The apps that have files.
    pub fn all_apps(&self) -> Vec<AppId> {
        named(&self.apps(), |name| AppId::parse(name).ok())
    }

    /// Removes a release.
    ///
    /// # Errors
    /// When it could not be put aside.
    pub fn discard_release(&self, app: &AppId, deploy: &DeployId) -> io::Result<()> {
        let _ = fs::remove_file(self.start_spec_file(app, deploy));
        self.discard(&self.site(app, deploy))?;
        self.discard(&self.release(app, deploy))
    }

    /// Removes all of an app, its data too unless it is to be kept.
    ///
    /// # Errors
    /// When something could not be put aside.
    pub fn discard_app(&self, app: &AppId, keep_data: bool) -> io::Result<()> {
        self.discard(&self.sites(app))?;
        if !keep_data {
            return self.discard(&self.apps().join(app.as_str()));
        }
        let mut names = ["repo", "cache", "tmp", "releases", EXITS].into_iter();
        names.try_for_each(|name| self.discard(&self.of(app, name)))
    }

    /// Puts a directory, or whatever has its name, aside: at once, however much is in it. It
    /// stays where it is under another name, since only who may write to a directory may move
    /// it to another one (rename(2)), and an app may have sealed its own.
    ///
    /// # Errors
    /// When it could neither be put aside nor removed.
    pub fn discard(&self, path: &Path) -> io::Result<()> {
        match fs::rename(path, path.with_file_name(random_name())) {
            // The disk may have no room for even that: then it goes at once.
            Err(error) if error.kind() != io::ErrorKind::NotFound => remove_tree(path, &|| true),
            // Or it was not there, or the other one of a deploy that ends and an owner who
            // removes the app has done it.
            _ => Ok(()),
        }
    }

    /// Removes for good what was put aside. What cannot be removed now stays for
    /// the next time; a process that still runs in it may be putting files there.
    pub fn empty_trash(&self, go_on: &dyn Fn() -> bool) {
        let tools = self.tools();
        let mut places = vec![self.apps(), self.data.join(SITES), tools.join(PYTHONS), tools];
        for app in self.all_apps() {
            places.extend([self.of(&app, ""), self.of(&app, "releases"), self.sites(&app)]);
        }
        for entry in places.iter().flat_map(fs::read_dir).flatten().flatten() {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            // A file that is being written has such a name for a moment.
            if name.starts_with('.')
                && (!name.ends_with(".tmp") || is_abandoned(&entry))
                && let Err(error) = remove_tree(&entry.path(), go_on)
                && go_on()
            {
                log::warn!("{} could not be removed yet: {error}", entry.path().display());
            }
        }
    }

    /// Why there is no room for a deploy, if so.
    pub fn no_room(&self) -> Option<String> {
        match self.space() {
            Ok(space) => space.too_little(),
            Err(error) => Some(format!("the free disk space is not known: {error}")),
        }
    }

    /// What is free and what there is in all, where the data is.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn space(&self) -> io::Result<Space> {
        Space::of(self.data.path())
    }
}

#[cfg(test)]
mod tests;
