//! From a repository to a running app: the pipeline as one page of named steps.
//!
//! `queued → fetching → building → starting → checking → live`, or `failed` with
//! one sentence that says at which step and why. The release before keeps serving
//! until the new one has proved itself, and stays untouched when it does not.
//! Nothing that comes from a repository runs outside a [`sandbox`].
//!
//! To read it: the [`deployer`] takes what is asked for, a [`worker`] takes it out of the
//! queue and runs the steps below: [`source`] with [`fetch`], [`detect`], [`build`] or, without
//! a process, [`publish`], then [`launch`], [`check`] and [`switch`]. From then on it is for the
//! [`supervise`]r, whose apps are [`instance`]s, each in a [`state`], and for [`draining`], where
//! the ones before end; [`ended`] says why one did. All of it stands on what a [`probe`] knows of
//! the [`machine`].

mod build;
pub mod deployer;
mod error;
mod fetch_step;
mod gc;
mod hosts;
mod publish;
mod switch;
mod worker;

pub use deployer::{Deployer, Runtime};
pub use error::DeployError;
pub use hosts::HostName;

use crate::disk::layout::Recipe;
use crate::disk::tree;
use crate::journal::{Redactor, Writer};
use crate::model::{AppId, DeployId, DeployStatus, EnvName, Secret, Trigger};
use crate::proc::Cancel;
use crate::runtime::exit_reason::without_last_lines;
use crate::runtime::health_check::{Check, Verdict};
use crate::runtime::launch::{self, Launched};
use crate::sandbox::host::Machine;
use crate::source::detect;
use crate::store::App;
pub use deployer::Shared;
use error::Halt;
use serde_json::json;
use std::cell::Cell;
use std::path::Path;

/// Characters of a commit's hash that name it to people.
const SHORT_COMMIT: usize = 10;

/// Why a deploy of an app that is gone has ended.
const REMOVED: &str = "cancelled, because the app was removed";

/// Characters of a failed deploy's reason in the server's log, which keeps everybody's.
const REASON: usize = 300;

/// One deploy on its way.
struct Attempt<'a> {
    shared: &'a Shared,
    app: App,
    id: &'a DeployId,
    /// The release that it uses, if it makes none: a rollback or a restart.
    back_to: Option<DeployId>,
    /// Whether that is the live one.
    restarts: bool,
    cancel: &'a Cancel,
    log: Writer,
    /// The step that an error is put down to.
    doing: Cell<&'static str>,
    redactor: Redactor,
    token: Option<Secret>,
    env: Vec<(EnvName, Secret, bool)>,
}

/// Runs one deploy from the queue to its end, whatever that is.
fn run(shared: &Shared, app: &AppId, id: &DeployId, cancel: &Cancel) {
    let begun = shared.store.app(app).map_err(|e| e.to_string()).and_then(|found| {
        let app = found.ok_or("the app is gone")?;
        let mut deploy = shared.store.deploy(id).map_err(|e| e.to_string())?;
        let restarts = deploy.as_ref().is_some_and(|deploy| deploy.trigger == Trigger::Restart);
        if restarts {
            shared.store.follow_live(id).map_err(|e| e.to_string())?;
            deploy = shared.store.deploy(id).map_err(|e| e.to_string())?;
        }
        let back_to = deploy.and_then(|deploy| deploy.release);
        // Read once: what the log hides is then exactly what Git and the build get.
        let token = shared.store.git_credential(&app).map_err(|e| e.to_string())?;
        let env = shared.store.env_clear(&app.id).map_err(|e| e.to_string())?;
        let secrets = env.iter().filter(|(_, _, secret)| *secret).map(|(_, value, _)| value);
        // No build ever gets this one; one that does not open is no reason to stop.
        let hook = shared.store.webhook_secret(&app.id).ok().flatten();
        let redactor = Redactor::new(secrets.chain(&token).chain(&hook).cloned().collect());
        let log = shared.journal.begin(id, redactor.clone());
        let log = log.map_err(|e| format!("the deploy's log cannot be written: {e}"))?;
        let doing = Cell::new("");
        Ok(Attempt { shared, app, id, back_to, restarts, cancel, log, doing, redactor, token, env })
    });
    match begun {
        Ok(attempt) => attempt.run(),
        Err(sentence) => {
            log::info!("app {app}: deploy {id} failed: {}", for_the_servers_log(&sentence));
            shared.fail(id, &sentence);
        }
    }
    shared.prune(app);
}

impl Attempt<'_> {
    fn run(self) {
        let result = self.steps();
        let (status, error) = match result {
            Ok(()) => ("live", None),
            Err(halt) => {
                // First of all: without space not even the failure could be noted.
                self.shared.clear_away(&self.app.id, self.id);
                ("failed", Some(self.failed(halt)))
            }
        };
        self.tell_the_server(error.as_deref());
        if let Some(sentence) = &error {
            self.shared.fail(self.id, sentence);
        }
        self.log.finish(&json!({"status": status, "error": error}).to_string());
    }

    /// Ends the log with the reason, and answers it with the step, which the log has above.
    fn failed(&self, halt: Halt) -> String {
        let (step, sentence) = match halt {
            Halt::Failed(sentence) => (self.doing.get(), sentence),
            Halt::Cancelled => ("", self.why_cancelled()),
        };
        let sentence = self.redactor.redact(&sentence).into_owned();
        if self.shared.serves(&self.app.id) {
            self.say("Nothing has changed for visitors: what was live before goes on serving");
        }
        self.say(&format!("Failed: {}", without_last_lines(&sentence)));
        if step.is_empty() { sentence } else { format!("{step} failed: {sentence}") }
    }

    /// Whoever cancels it notes why in the database; a server that stops does not.
    fn why_cancelled(&self) -> String {
        match self.shared.store.deploy(self.id) {
            Ok(Some(deploy)) => deploy.error,
            Ok(None) => Some(REMOVED.to_owned()),
            Err(_) => None,
        }
        .unwrap_or_else(|| self.shared.queue.why_closed().unwrap_or("cancelled").to_owned())
    }

    /// One line for the operator, who may not look into the dashboard.
    fn tell_the_server(&self, error: Option<&str>) {
        let (name, id) = (self.app.name.as_str(), self.id);
        let noted = self.shared.store.deploy(self.release()).ok().flatten();
        let commit = noted.and_then(|deploy| deploy.commit).unwrap_or_default();
        let commit = match commit.get(..SHORT_COMMIT) {
            Some(short) => format!(" (commit {short})"),
            None => String::new(),
        };
        match error {
            None => log::info!("app {name}: deploy {id}{commit} is live"),
            Some(sentence) => {
                let why = for_the_servers_log(sentence);
                log::info!("app {name}: deploy {id}{commit} failed: {why}");
            }
        }
    }

    fn steps(&self) -> Result<(), Halt> {
        let machine = self.shared.machine()?;
        let recipe = match &self.back_to {
            Some(release) => self.kept(release)?,
            None => {
                self.step(DeployStatus::Fetching, || self.prepare(&machine))?;
                self.fetch(&machine)?;
                self.step(DeployStatus::Building, || self.detect_and_build(&machine))?
            }
        };
        let Some(start) = &recipe.start else {
            return self.step(DeployStatus::Checking, || self.go_live_as_files());
        };
        let launched = self.step(DeployStatus::Starting, || self.launch(start))?;
        let proved = self.step(DeployStatus::Checking, || self.check(&machine, launched))?;
        self.go_live(proved)
    }

    /// The deploy whose release this one uses.
    fn release(&self) -> &DeployId {
        self.back_to.as_ref().unwrap_or(self.id)
    }

    /// How to start a release that was live before.
    fn kept(&self, release: &DeployId) -> Result<Recipe, Halt> {
        let what = if self.restarts { "Restarting" } else { "Going back to" };
        self.say(&format!("{what} the release of deploy {release}"));
        let recipe = self.shared.places.recipe(&self.app.id, release);
        Ok(recipe.ok_or("the release's files are gone; deploy again")?)
    }

    /// Notes the step, then takes it.
    fn step<T>(
        &self,
        step: DeployStatus,
        work: impl FnOnce() -> Result<T, Halt>,
    ) -> Result<T, Halt> {
        let noted = self.shared.store.set_step(self.id, step).map_err(|e| e.to_string())?;
        if !noted || self.cancel.is_cancelled() {
            return Err(Halt::Cancelled);
        }
        self.doing.set(step.as_str());
        work()
    }

    /// Writes a line with the time. Not for what a build prints: a time within one of its
    /// lines, which may come in pieces, would hide a secret from the redactor.
    fn say(&self, line: &str) {
        self.log.note(line);
    }

    /// Is there a machine, room, and a place for the release?
    fn prepare(&self, machine: &Machine) -> Result<(), Halt> {
        self.has_room()?;
        let places = &self.shared.places;
        places
            .prepare(machine, &self.app.id, self.app.slot, self.id)
            .map_err(|e| format!("the app's directories could not be made: {e}"))?;
        Ok(())
    }

    fn has_room(&self) -> Result<(), Halt> {
        self.shared.no_room().map_or(Ok(()), |sentence| Err(Halt::Failed(sentence)))
    }

    fn detect_and_build(&self, machine: &Machine) -> Result<Recipe, Halt> {
        let (app, places) = (&self.app, &self.shared.places);
        let release = places.release(&app.id, self.id);
        let root = app.settings.root_dir.as_str();
        let tree = tree::Tree::open(&release, root)
            .map_err(|_| format!("the repository has no directory {root} (or it is a link)"))?;
        let (build, start) = (&app.settings.build_command, &app.settings.start_command);
        let plan = detect::detect(&tree, build, start, &detect::Installed)?;
        self.say(&plan.found);
        if let Some(command) = &plan.build {
            let wait = || self.say("Waiting until another app's build has ended");
            let turn = self.shared.queue.build_turn(self.id, self.cancel, wait);
            let _turn = turn.ok_or(Halt::Cancelled)?;
            self.has_room()?;
            self.say(&format!("Building: {command}"));
            let sandbox = launch::for_build(machine, app.slot, root, self.env.clone())
                // One call can take it all, before anybody looks.
                .file_size(places.space().map_err(|e| e.to_string())?.room())
                .bind(&release, "/app")
                .bind(&places.cache(&app.id), "/cache")
                .bind(&places.temporary(&app.id), "/var/tmp");
            let shared = self.shared;
            let no_room = || shared.no_room();
            let built = build::build(
                &sandbox,
                command,
                &self.redactor,
                self.cancel,
                &no_room,
                build::DEADLINE,
                &mut |line| self.log.line(line),
            );
            if built.is_err() && no_room().is_some() {
                // It may be its cache that it has filled, and then no deploy would have room.
                places.discard_cache(&app.id).map_err(|e| e.to_string())?;
            }
            built?;
        }
        if plan.start.is_none() {
            self.publish(&release, root)?;
        }
        let recipe = Recipe { root: root.to_owned(), start: plan.start };
        let kept = places.keep_recipe(&app.id, self.id, &recipe);
        kept.map_err(|e| format!("the release could not be completed: {e}"))?;
        Ok(recipe)
    }

    /// Whether anybody could serve a static site.
    fn needs_a_router(&self) -> Result<(), Halt> {
        self.shared.router.absent().map_or(Ok(()), |why| {
            Err(Halt::Failed(format!(
                "the router serves static sites, and there is none ({why}); or give a start \
                 command such as `python3 -m http.server $PORT --bind 127.0.0.1`"
            )))
        })
    }

    /// Copies a static site's files to where the router serves them from.
    fn publish(&self, release: &Path, root: &str) -> Result<(), Halt> {
        let (app, places) = (&self.app, &self.shared.places);
        self.needs_a_router()?;
        self.has_room()?;
        let site = places.fresh_site(&app.id, self.id).map_err(|e| e.to_string())?;
        let open = self.shared.machine()?.open_up(release);
        open.map_err(|e| format!("what the build has sealed could not be opened: {e}"))?;
        // Looked for again: a build may have changed all of it.
        let tree = tree::Tree::open(release, root).map_err(|e| e.to_string())?;
        let room = places.space().map_err(|e| e.to_string())?.room();
        let go_on = || !self.cancel.is_cancelled() && self.shared.no_room().is_none();
        let published = publish::publish(&tree, &site, room, &go_on);
        if self.cancel.is_cancelled() {
            return Err(Halt::Cancelled);
        }
        let published =
            published.map_err(|halt| self.shared.no_room().map_or(halt, Halt::Failed))?;
        if !site.join("index.html").is_file() {
            return Err(Halt::Failed("the build left no index.html".to_owned()));
        }
        let files = if published.files == 1 { "file" } else { "files" };
        self.say(&format!("Published {} {files}", published.files));
        if let Some(warning) = published.warning() {
            self.say(&warning);
        }
        Ok(())
    }

    fn launch(&self, start: &str) -> Result<Launched, Halt> {
        self.say(&format!("Starting: {start}"));
        Ok(self.shared.launch(&self.app, self.id, self.release())?)
    }

    fn check(&self, machine: &Machine, mut launched: Launched) -> Result<Launched, Halt> {
        let settings = &self.app.settings;
        let port = launched.process().port;
        let check = Check {
            port,
            uid: machine.outside_uid(self.app.slot),
            path: &settings.health_path,
            timeout: settings.health_timeout,
            visit: self.shared.visit(&self.app, port),
        };
        let (seconds, path) = (settings.health_timeout.seconds(), settings.health_path.as_str());
        let what = if path.is_empty() { "it answers" } else { "it answers well" };
        let request = &check.visit.request(path);
        self.say(&format!("Checking for up to {seconds} s that {what} on port {port}: {request}"));
        let instance = launched.instance().ok_or(Halt::Cancelled)?;
        match check.wait(instance, self.cancel, &|line| self.say(line)) {
            Verdict::Well => Ok(launched),
            Verdict::Unwell(sentence) => Err(self.unproved(&sentence)),
            Verdict::Cancelled => Err(Halt::Cancelled),
            Verdict::Ended(exit) => {
                let how = self.shared.how_it_ended(&self.app.id, self.id, instance, exit);
                Err(self.unproved(&format!("the app ended with {how} while it was being checked")))
            }
        }
    }

    /// Why an app has not proved itself, with what it wrote: in the log before the reason,
    /// which is looked for at its end.
    fn unproved(&self, sentence: &str) -> Halt {
        let (why, lines) = self.shared.with_last_lines(&self.app.id, self.id, sentence);
        if !lines.is_empty() {
            self.say(&format!("The last lines of the app:\n{lines}"));
        }
        Halt::Failed(why)
    }
}

/// The first line of a reason, not too long. The logger writes control characters out.
fn for_the_servers_log(sentence: &str) -> String {
    let first = without_last_lines(sentence).lines().next().unwrap_or_default();
    first.chars().take(REASON).collect()
}
