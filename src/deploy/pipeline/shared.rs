//! What a new release has in common with the live one takes no room a second time.

use super::super::error::DeployFailure;
use super::Attempt;
use crate::disk::shared_files;
use crate::model::failed;
use crate::sandbox::host::Host;
use std::path::Path;

impl Attempt<'_> {
    /// Makes what a build has left readable, and has the release use the files of the live one
    /// where both have the same.
    pub(super) fn take_over(
        &self,
        host: &Host,
        release: &Path,
        was_built: bool,
    ) -> Result<(), DeployFailure> {
        let open = host.users.open_up(release, self.cancel);
        self.goes_on()?;
        open.map_err(failed("what the build has sealed could not be opened"))?;
        if !was_built {
            return Ok(());
        }
        let (app, layout) = (&self.app, &self.tools.layout);
        let live = app.live_release.as_ref().map(|live| layout.release(&app.id, live));
        let shared = shared_files::share(host.users, release, live.as_deref(), self.cancel);
        self.goes_on()?;
        match shared.map(|bytes| bytes >> 20) {
            Ok(0) => {}
            Ok(mib) => self.say(&format!("{mib} MiB of it are files of the live release")),
            Err(error) => log::warn!("deploy {} shares no files: {error}", self.id),
        }
        Ok(())
    }
}
