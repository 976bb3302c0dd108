//! The step that gets the source: from its Git repository, or out of an archive that was sent.

use super::super::error::DeployFailure;
use super::Attempt;
use crate::disk::space::{Space, watched};
use crate::model::{Trigger, failed};
use crate::proc::Cancel;
use crate::sandbox::host::Host;
use crate::source::archive::Unpack;
use crate::source::error::{FetchError, TokenOf};
use crate::source::fetch::{Commit, Fetch};
use crate::source::limits::FetchLimits;

impl Attempt<'_> {
    /// Gets the source into the release's directory, as long as there is room.
    pub(super) fn fetch(&self, host: &Host) -> Result<(), DeployFailure> {
        self.has_room()?;
        let (app, layout) = (&self.app, &self.tools.layout);
        let prepared = layout.prepare(host.users, &app.id, app.slot, self.id);
        prepared.map_err(failed("the app's directories could not be made"))?;
        match self.trigger {
            Some(Trigger::Upload) => self.unpack(host),
            _ => self.fetch_commit(host),
        }
    }

    fn fetch_commit(&self, host: &Host) -> Result<(), DeployFailure> {
        let (app, layout) = (&self.app, &self.tools.layout);
        let url = app.git_repo.as_ref().ok_or_else(|| {
            format!(
                "this app has no repository; send an archive, as in \
                 `tar -C dist -c . | server deploy {} -`, or give it a repository in its settings",
                app.name
            )
        })?;
        let branch = match app.settings.branch.as_str() {
            "" => "the default branch".to_owned(),
            name => format!("branch {name}"),
        };
        self.say(&format!("Fetching {branch} of {url}"));
        let token_of = if app.has_git_token { TokenOf::App } else { TokenOf::Settings };
        let space = || self.space();
        let fetch = Fetch {
            host,
            slot: app.slot,
            url,
            branch: &app.settings.branch,
            token: self.token.clone().map(|token| (token, token_of)),
            root: app.settings.root_dir.as_str(),
            cache: &layout.repo(&app.id),
            release: &layout.release(&app.id, self.id),
            redactor: &self.redactor,
            limits: FetchLimits::default().within(space()),
            space: &space,
        };
        let fetched = self.while_there_is_room(|stop| fetch.run(stop, &mut |l| self.say(l)));
        let Commit { hash, author, subject } = fetched?;
        self.say(&format!("Commit {hash} {subject}"));
        Ok(self.tools.store.set_commit(self.id, &hash, &subject, &author)?)
    }

    fn unpack(&self, host: &Host) -> Result<(), DeployFailure> {
        let archive = self
            .queue
            .take_archive(self.id)
            .ok_or("the server was started anew before the archive had its turn; send it again")?;
        self.say("Unpacking the archive");
        let unpack = Unpack {
            host,
            slot: self.app.slot,
            release: &self.tools.layout.release(&self.app.id, self.id),
            limits: FetchLimits::default().within(self.space()),
        };
        self.while_there_is_room(|stop| unpack.run(archive, stop))
    }

    fn space(&self) -> Space {
        self.tools.layout.space().unwrap_or_default()
    }

    fn while_there_is_room<T>(
        &self,
        work: impl FnOnce(&Cancel) -> Result<T, FetchError>,
    ) -> Result<T, DeployFailure> {
        match watched(self.cancel, &|| self.tools.layout.no_room(), work)? {
            (Ok(done), _) => Ok(done),
            (Err(FetchError::Failed(e) | FetchError::Strange(e, _)), _) => Err(e.into()),
            (Err(FetchError::TooLarge(error)), _) => Err(self.too_large(error)),
            (Err(FetchError::Cancelled), Some(why)) => {
                Err(self.too_large(format!("the fetch was ended: {why}")))
            }
            (Err(FetchError::Cancelled), None) => Err(DeployFailure::Cancelled),
        }
    }

    /// What was fetched of a repository for which there is no room serves nobody.
    fn too_large(&self, error: impl Into<DeployFailure>) -> DeployFailure {
        let layout = &self.tools.layout;
        if let Err(error) = layout.discard(&layout.repo(&self.app.id)) {
            log::warn!("the Git cache of app {} could not be removed: {error}", self.app.id);
        }
        error.into()
    }
}
