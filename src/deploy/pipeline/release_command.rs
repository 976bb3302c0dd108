//! The step that a repository wants taken once before a release is started, such as a migration.

use super::super::build::{Build, DEADLINE};
use super::super::error::DeployFailure;
use super::Attempt;
use crate::disk::layout::StartSpec;
use crate::runtime::launch::app_sandbox;
use crate::runtime::once::Once;
use crate::sandbox::bwrap::Purpose;
use crate::sandbox::host::Host;

impl Attempt<'_> {
    /// Does what comes before the start: the release command, and the end of a process that must
    /// not be there beside the next. Where two may not use the data at once no process of the
    /// app is there beside the command either; its jobs and its owner's commands may be.
    pub(super) fn make_ready(&self, host: &Host, spec: &StartSpec) -> Result<(), DeployFailure> {
        if self.app.settings.one_at_a_time {
            self.make_way()?;
            return self.run_release(host, spec);
        }
        self.run_release(host, spec)?;
        // Workers that prove themselves do it alone: two would take the same jobs.
        let alone = self.app.settings.runs_alone() || spec.workers_only;
        if alone { self.make_way() } else { Ok(()) }
    }

    /// Runs the command in the sandbox that the app will have, with its data. When it fails, the
    /// release before serves on, or is started again where it had to end first.
    pub(super) fn run_release(&self, host: &Host, spec: &StartSpec) -> Result<(), DeployFailure> {
        let Some(command) = &spec.release else { return Ok(()) };
        self.has_room()?;
        self.say(&format!("Running the release command: {command}"));
        let env = self.env.clone();
        let place = (host, Purpose::Once);
        let sandbox = app_sandbox(self.tools, place, &self.app, spec, self.id, env)?;
        let once = Once {
            name: "release",
            sandbox: &sandbox,
            cancel: self.cancel,
            must_end: &|| self.tools.layout.no_room(),
            at_most: DEADLINE,
        };
        Build { command, log: &self.log, once }.run()
    }
}
