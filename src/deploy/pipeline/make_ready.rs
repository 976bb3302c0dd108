//! What comes between a build and a start: the command that a repository wants run once before a
//! release is started, such as a migration, and the end of what must not be there beside the next.

use super::super::error::DeployFailure;
use super::Attempt;
use crate::disk::layout::StartSpec;
use crate::model::failed;
use crate::router::Target;
use crate::runtime::hold::Hold;
use crate::runtime::launch::{app_sandbox, fresh_port};
use crate::runtime::tools::Message;
use crate::sandbox::bwrap::Purpose;
use crate::sandbox::host::Host;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

/// Time between two looks whether the deploy was cancelled meanwhile.
const LOOK: Duration = Duration::from_millis(100);

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
        let (env, place) = (self.env.clone(), (host, Purpose::Once));
        let sandbox = app_sandbox(self.tools, place, &self.app, spec, self.id, env)?;
        self.run_once("release", &sandbox, command)
    }

    /// Has requests wait, and then the processes that run end: the next ones must be alone.
    fn make_way(&self) -> Result<(), DeployFailure> {
        let app = &self.app;
        let mut held_at = None;
        if app.process.is_some() {
            let hold = Hold::new(fresh_port(self.tools)?);
            let hold = hold.map_err(failed("requests could not be held"))?;
            self.lead(&Target::Process(hold.port))?;
            held_at = Some(hold.port);
            self.hold.set(Some(hold));
            self.say("The app runs one at a time: requests wait until the next process serves");
        }
        let (told, gone) = channel();
        self.tools.mailbox.send(Message::GiveWay(app.id.clone(), held_at, told));
        // Who stops or removes the app cancels this first.
        while gone.recv_timeout(LOOK) != Err(RecvTimeoutError::Disconnected) {
            self.goes_on()?;
        }
        self.goes_on()
    }

    /// Has the release before come back, should it have been ended for this one.
    pub(super) fn give_back(&self) {
        self.tools.mailbox.send(Message::Resume(self.app.id.clone(), self.hold.take()));
    }
}
