//! The last step of a deploy: the switch from the release before to the new one.

use super::Attempt;
use super::error::Halt;
use crate::router::Target;
use crate::runtime::launch::Launched;
use crate::runtime::supervisor::Message;
use crate::store::Process;

impl Attempt<'_> {
    /// A process that has proved itself becomes the live one.
    pub fn go_live(&self, launched: Launched) -> Result<(), Halt> {
        let process = launched.process().clone();
        self.switch(&Target::Process(process.port), Some(&process))?;
        self.say(&format!("Live on port {}", process.port));
        if let Some(instance) = launched.keep() {
            let message = Message::TakeOver(self.app.id.clone(), process, Box::new(instance));
            self.shared.supervisor.send(message);
        }
        Ok(())
    }

    /// Published files become what is live.
    pub fn go_live_as_files(&self) -> Result<(), Halt> {
        // Again: a rollback publishes nothing.
        self.needs_a_router()?;
        let (app, release) = (self.app.id.clone(), self.release().clone());
        if !self.shared.places.site(&app, &release).is_dir() {
            return Err(Halt::Failed("the site's files are gone; deploy again".to_owned()));
        }
        self.switch(&Target::Files(app.clone(), release), None)?;
        self.say("Live: the router serves the files");
        self.shared.supervisor.send(Message::GiveUp(app));
        Ok(())
    }

    /// The switch: the router confirms, then one transaction in the database makes it
    /// final; after that the supervisor sends the process before it home.
    fn switch(&self, target: &Target, process: Option<&Process>) -> Result<(), Halt> {
        let (shared, app) = (self.shared, &self.app.id);
        self.doing.set("going live");
        let name = || match shared.store.app(app) {
            Ok(Some(app)) => Ok(app.name),
            Ok(None) => Err("the app was removed".to_owned()),
            Err(error) => Err(error.to_string()),
        };
        let routed = shared.router.switch(app, &name, target, &|line| self.say(line))?;
        // The database decides between this and a cancellation, which ends the deploy there.
        let halt = match shared.store.go_live(self.id, app, process) {
            Ok(true) => {
                // Whatever the process before did is over.
                shared.board.clear(app);
                return Ok(());
            }
            Ok(false) => Halt::Cancelled,
            Err(error) => Halt::Failed(error.to_string()),
        };
        routed.take_back();
        Err(halt)
    }
}
