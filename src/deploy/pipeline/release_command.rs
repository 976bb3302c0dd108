//! The step that a repository wants taken once before a release is started, such as a migration.

use super::super::build::{Build, DEADLINE};
use super::super::error::DeployFailure;
use super::Attempt;
use crate::disk::layout::StartSpec;
use crate::runtime::launch::app_sandbox;
use crate::sandbox::host::Host;

impl Attempt<'_> {
    /// Runs the command in the sandbox that the app will have, with its data. When it fails, the
    /// release before serves on.
    pub(super) fn run_release(&self, host: &Host, spec: &StartSpec) -> Result<(), DeployFailure> {
        let Some(command) = &spec.release else { return Ok(()) };
        self.has_room()?;
        self.say(&format!("Running the release command: {command}"));
        let env = self.env.clone();
        let sandbox = app_sandbox(self.tools, host, &self.app, spec, self.id, env)?;
        let run = Build {
            name: "release",
            sandbox: &sandbox,
            command,
            log: &self.log,
            cancel: self.cancel,
            no_room: &|| self.tools.layout.no_room(),
            at_most: DEADLINE,
        };
        run.run()
    }
}
