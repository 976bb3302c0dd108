//! The steps of a deploy whose release is files.

use super::super::error::DeployFailure;
use super::super::publish::{apply_rules, publish};
use super::Attempt;
use crate::disk::layout::StartSpec;
use crate::disk::tree::Tree;
use crate::model::DeployStatus;
use crate::router::{OURS, RULES, Target};
use crate::sandbox::host::Host;
use std::path::Path;

impl Attempt<'_> {
    /// Makes published files live. What runs is left alone until then, and ends by it: nobody
    /// could answer requests that were held for files.
    pub(super) fn run_site(&self, host: &Host, spec: &StartSpec) -> Result<(), DeployFailure> {
        if !spec.processes.is_empty() {
            self.step(DeployStatus::Starting, || self.run_release(host, spec))?;
        } else if spec.release.is_some() {
            self.say("The Procfile's `release:` is not run: files have no process");
        }
        self.step(DeployStatus::Checking, || self.site_is_there())?;
        let files = Target::Files(self.app.id.clone(), self.release().clone());
        self.go_live(&files, Vec::new(), "Live: the router serves the files")
    }

    /// Copies a static site's files to where the router serves them from.
    pub(super) fn publish(
        &self,
        release: &Path,
        dir: &str,
        spa: bool,
    ) -> Result<(), DeployFailure> {
        let (app, layout) = (&self.app, &self.tools.layout);
        self.needs_a_router()?;
        self.has_room()?;
        let site = layout.fresh_site(&app.id, self.id)?;
        let below = format!("{}/{dir}", app.settings.root_dir.as_str());
        let below = below.trim_matches('/');
        let tree = Tree::open(release, below)
            .map_err(|_| format!("the build left no directory {below} (or it is a link)"))?;
        let room = layout.space()?.room();
        let go_on = || !self.cancel.is_cancelled() && layout.no_room().is_none();
        let published = publish(&tree, &site, room, &go_on);
        self.goes_on()?;
        let no_room = |failure| layout.no_room().map_or(failure, DeployFailure::from);
        let published = published.map_err(no_room)?;
        if !site.join("index.html").is_file() {
            return Err("the build left no index.html".into());
        }
        let notes = apply_rules(&site, app.settings.spa_fallback.unwrap_or(spa))?;
        notes.iter().for_each(|note| self.say(note));
        if site.join(OURS).join(RULES).is_file() {
            self.tools.router.follow_rules(&app.id, self.id)?;
        }
        let files = if published.files == 1 { "file" } else { "files" };
        self.say(&format!("Published {} {files}", published.files));
        if let Some(warning) = published.warning() {
            self.say(&warning);
        }
        Ok(())
    }

    /// Whether a site can be served: a rollback publishes nothing.
    fn site_is_there(&self) -> Result<(), DeployFailure> {
        self.needs_a_router()?;
        if !self.tools.layout.site(&self.app.id, self.release()).is_dir() {
            return Err("the site's files are gone; deploy again".into());
        }
        Ok(())
    }

    /// Whether anything could serve a static site.
    pub(super) fn needs_a_router(&self) -> Result<(), DeployFailure> {
        self.tools.router.absent().map_or(Ok(()), |why| {
            Err(DeployFailure::from(format!(
                "the router serves static sites, and there is none ({why}); or give a start \
                 command such as `python3 -m http.server $PORT --bind 127.0.0.1`"
            )))
        })
    }
}
