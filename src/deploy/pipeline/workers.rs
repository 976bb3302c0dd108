//! The steps of a deploy whose release is workers alone: nobody asks it anything, so it is well
//! when it stays up.

use super::super::error::DeployFailure;
use super::Attempt;
use crate::disk::layout::StartSpec;
use crate::model::{AnyError, DeployStatus};
use crate::proc::wait_any;
use crate::router::Target;
use crate::runtime::exit_reason::how_it_ended;
use crate::runtime::launch::{launch, mark, workers_of};
use crate::runtime::launched::Launched;
use crate::sandbox::host::Host;
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

/// How long each of them must stay up.
const STAYS_UP: Duration = Duration::from_secs(2);

impl Attempt<'_> {
    /// Ends the workers of the release before, starts those of this one, and makes them live.
    pub(super) fn run_workers(&self, host: &Host, spec: &StartSpec) -> Result<(), DeployFailure> {
        let app = &self.app.id;
        let mut launched = self.step(DeployStatus::Starting, || {
            self.make_ready(host, spec)?;
            self.tools.journal.note_app(app, &mark(&app.into(), self.id));
            let all = workers_of(&self.app, spec).into_iter().map(|(id, command)| {
                self.say(&format!("Starting {id}: {command}"));
                launch(self.tools, &self.app, (self.id, self.release()), &id, None)
            });
            Ok(all.collect::<Result<Vec<_>, AnyError>>()?)
        })?;
        self.step(DeployStatus::Checking, || self.stay_up(&mut launched))?;
        let said = "Live, without a port: the app has no process `web`";
        self.go_live(&Target::Down, launched, said)
    }

    /// Waits until they have been up long enough.
    fn stay_up(&self, launched: &mut [Launched]) -> Result<(), DeployFailure> {
        self.say(&format!("Checking that they stay up for {} s", STAYS_UP.as_secs()));
        let until = Instant::now() + STAYS_UP;
        loop {
            self.goes_on()?;
            for Launched { id, instance, .. } in &mut *launched {
                let Some(exit) = instance.try_wait() else { continue };
                let how = how_it_ended(self.tools, (id, self.id), instance, exit);
                let sentence = format!("{id} ended with {how} while it was checked");
                return Err(self.unproved(id, &sentence));
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            let all = launched.iter().map(|one| one.instance.as_fd());
            wait_any(&all.chain([self.cancel.as_fd()]).collect::<Vec<_>>(), left)?;
        }
    }
}
