//! The step of a deploy whose app cannot run twice: the process before ends first.

use super::super::error::DeployFailure;
use super::Attempt;
use crate::model::failed;
use crate::router::Target;
use crate::runtime::hold::Hold;
use crate::runtime::tools::Message;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

/// Time between two looks whether the deploy was cancelled meanwhile.
const LOOK: Duration = Duration::from_millis(100);

impl Attempt<'_> {
    /// Has requests wait, and then the process that runs end, where the next one must be alone.
    pub(super) fn make_way(&self) -> Result<(), DeployFailure> {
        let app = &self.app;
        if !app.settings.runs_alone() {
            return Ok(());
        }
        if app.live_release.is_some() && !app.is_static {
            let hold = Hold::new().map_err(failed("requests could not be held"))?;
            self.lead(&Target::Process(hold.port))?;
            self.hold.set(Some(hold));
            self.say("Stopping the release before: the app runs one at a time, requests wait");
        }
        let (held, gone) = channel();
        self.tools.mailbox.send(Message::GiveWay(app.id.clone(), held));
        while gone.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
            if self.cancel.is_cancelled() {
                return Err(DeployFailure::Cancelled);
            }
        }
        Ok(())
    }

    /// Has the release before come back, should it have been ended for this one.
    pub(super) fn give_back(&self) {
        if self.app.settings.runs_alone() {
            self.tools.mailbox.send(Message::Resume(self.app.id.clone(), self.hold.take()));
        }
    }
}
