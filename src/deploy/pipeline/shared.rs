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
        if self.cancel.is_cancelled() {
            return Err(DeployFailure::Cancelled);
        }
        open.map_err(failed("what the build has sealed could not be opened"))?;
        if !was_built {
            return Ok(());
        }
        let (app, layout) = (&self.app, &self.tools.layout);
        let live = app.live_release.as_ref().map(|live| layout.release(&app.id, live));
        match shared_files::share(host.users, release, live.as_deref(), self.cancel) {
            Ok(bytes) if bytes >> 20 == 0 => {}
            Ok(bytes) => {
                self.say(&format!("{} MiB of it are files of the live release", bytes >> 20));
            }
            Err(_) if self.cancel.is_cancelled() => return Err(DeployFailure::Cancelled),
            Err(error) => log::warn!("deploy {} shares no files: {error}", self.id),
        }
        Ok(())
    }
}
