//! The step of a deploy whose app cannot run twice: the process before ends first.

use super::super::error::DeployFailure;
use super::Attempt;
use crate::model::failed;
use crate::router::Target;
use crate::runtime::hold::Hold;
use crate::runtime::launch::fresh_port;
use crate::runtime::tools::Message;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

/// Time between two looks whether the deploy was cancelled meanwhile.
const LOOK: Duration = Duration::from_millis(100);

impl Attempt<'_> {
    /// Has requests wait, and then the processes that run end: the next ones must be alone.
    pub(super) fn make_way(&self) -> Result<(), DeployFailure> {
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
        while !self.cancel.is_cancelled() {
            if gone.recv_timeout(LOOK) == Err(RecvTimeoutError::Disconnected) {
                break;
            }
        }
        if self.cancel.is_cancelled() { Err(DeployFailure::Cancelled) } else { Ok(()) }
    }

    /// Has the release before come back, should it have been ended for this one.
    pub(super) fn give_back(&self) {
        self.tools.mailbox.send(Message::Resume(self.app.id.clone(), self.hold.take()));
    }
}
