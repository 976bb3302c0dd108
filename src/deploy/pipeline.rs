//! The pipeline as one page: what happens to a deploy, from the queue to its end.
//!
//! Nothing that comes from a repository runs outside a sandbox.

mod beside_code;
mod fetching;
mod make_ready;
mod shared;
mod site;
mod workers;

use super::build;
use super::error::DeployFailure;
use super::gc;
use super::host_names::visit;
use super::outcome::{note_failure, tell_the_server, why_cancelled};
use super::queue::Queue;
use super::toolbox;
use crate::disk::layout::{StartSpec, TOOLS_INSIDE};
use crate::disk::tree::Tree;
use crate::journal::{LogOf, Redactor, Writer};
use crate::model::{
    AnyError, AppId, DeployId, DeployStatus, Domain, EnvName, ProcessId, Secret, Trigger, failed,
};
use crate::proc::Cancel;
use crate::router::{Changed, Target};
use crate::runtime::environment::surroundings;
use crate::runtime::exit_reason::{how_it_ended, with_last_lines, without_last_lines};
use crate::runtime::health_check::{HealthCheck, Verdict};
use crate::runtime::hold::Hold;
use crate::runtime::instance::Instance;
use crate::runtime::launch::{launch, port_of};
use crate::runtime::launched::Launched;
use crate::runtime::once::Once;
use crate::runtime::tools::{Message, Tools};
use crate::sandbox::bwrap::{Purpose, Sandbox};
use crate::sandbox::host::Host;
use crate::source::detect::tools::Tool;
use crate::source::detect::{Machine, Plan, Serve, detect};
use crate::store::App;
use std::cell::Cell;
use std::path::Path;
use std::sync::Arc;

/// The step in which what was proved becomes what visitors get.
const GOING_LIVE: &str = "going live";

/// What deploys work with.
pub struct Pipeline {
    /// What it needs to run apps.
    pub tools: Arc<Tools>,
    /// What is being deployed.
    pub queue: Arc<Queue>,
}

/// One deploy on its way.
struct Attempt<'a> {
    tools: &'a Tools,
    queue: &'a Queue,
    app: App,
    id: &'a DeployId,
    /// The release that it uses, if it makes none: a rollback or a restart.
    back_to: Option<DeployId>,
    /// Who asked for it.
    trigger: Option<Trigger>,
    cancel: &'a Cancel,
    log: Writer,
    redactor: Redactor,
    token: Option<Secret>,
    env: Vec<(EnvName, Secret, bool)>,
    /// The step that it is at, as it is called in the log; empty before the first.
    at: Cell<&'static str>,
    /// Requests that wait while the app has no process.
    hold: Cell<Option<Hold>>,
}

impl Pipeline {
    /// Runs one deploy from the queue to its end, whatever that is.
    pub fn run(&self, app: &AppId, id: &DeployId, cancel: &Cancel) {
        match self.begin(app, id, cancel) {
            Ok(attempt) => attempt.run(),
            Err(error) => {
                let sentence = error.to_string();
                tell_the_server(app.as_str(), id, None, Some(&sentence));
                note_failure(&self.tools.store, &self.queue, id, &sentence);
            }
        }
    }

    fn begin<'a>(
        &'a self,
        app: &AppId,
        id: &'a DeployId,
        cancel: &'a Cancel,
    ) -> Result<Attempt<'a>, AnyError> {
        let (tools, queue) = (&*self.tools, &*self.queue);
        let store = &tools.store;
        let app = store.app(app)?.ok_or("the app is gone")?;
        let mut deploy = store.deploy(id)?;
        let trigger = deploy.as_ref().map(|deploy| deploy.trigger);
        if trigger == Some(Trigger::Restart) {
            store.follow_live(id)?;
            deploy = store.deploy(id)?;
        }
        let back_to = deploy.and_then(|deploy| deploy.release);
        // Read once: what the log hides is then exactly what Git and the build get.
        let token = store.git_credential(&app)?;
        let env = store.env_clear(&app.id)?;
        let secrets = env.iter().filter(|(_, _, secret)| *secret).map(|(_, value, _)| value);
        // No build ever gets this one; one that does not open is no reason to stop.
        let hook = store.webhook_secret(&app.id).ok().flatten();
        let redactor = Redactor::new(secrets.chain(&token).chain(&hook).cloned().collect());
        let log = tools.journal.begin(LogOf::Deploy(id.clone()), redactor.clone());
        let log = log.map_err(failed("the deploy's log cannot be written"))?;
        Ok(Attempt {
            tools,
            queue,
            app,
            id,
            back_to,
            trigger,
            cancel,
            log,
            redactor,
            token,
            env,
            at: Cell::new(""),
            hold: Cell::default(),
        })
    }
}

impl Attempt<'_> {
    /// The steps, from the first to the last.
    fn steps(&self) -> Result<(), DeployFailure> {
        let host = self.tools.host.wait()?;
        self.app.live_release.iter().for_each(|live| self.tell_of_a_database(live));
        let spec = match &self.back_to {
            Some(release) => self.kept(release)?,
            None => {
                self.step(DeployStatus::Fetching, || self.fetch(&host))?;
                self.step(DeployStatus::Building, || self.build(&host))?
            }
        };
        let Some(start) = &spec.start else {
            let workers_only = spec.workers_only;
            let run = if workers_only { Self::run_workers } else { Self::run_site };
            return run(self, &host, &spec);
        };
        let (port, mut launched) = self.step(DeployStatus::Starting, || {
            self.make_ready(&host, &spec)?;
            self.say(&format!("Starting: {start}"));
            let (port, web) = (port_of(self.tools, &self.app)?, ProcessId::from(&self.app.id));
            let deploy = (self.id, self.release());
            Ok((port, launch(self.tools, &self.app, deploy, &web, Some(port))?))
        })?;
        self.step(DeployStatus::Checking, || self.check(&host, port, &mut launched.instance))?;
        let said = format!("Live on port {port}");
        self.go_live(&Target::Process(port), vec![launched], &said)
    }

    /// Notes the step, then takes it.
    fn step<T>(
        &self,
        step: DeployStatus,
        work: impl FnOnce() -> Result<T, DeployFailure>,
    ) -> Result<T, DeployFailure> {
        self.at.set(step.as_str());
        let noted = self.tools.store.set_step(self.id, step)?;
        if !noted || self.cancel.is_cancelled() {
            return Err(DeployFailure::Cancelled);
        }
        work()
    }

    /// How to start a release that was live before.
    fn kept(&self, release: &DeployId) -> Result<StartSpec, DeployFailure> {
        let restarts = self.trigger == Some(Trigger::Restart);
        let what = if restarts { "Restarting" } else { "Going back to" };
        self.say(&format!("{what} the release of deploy {release}"));
        let spec = self.tools.layout.start_spec(&self.app.id, release);
        Ok(spec.ok_or("the release's files are gone; deploy again")?)
    }

    /// Finds out how the source is built, builds it, and keeps how it is started.
    fn build(&self, host: &Host) -> Result<StartSpec, DeployFailure> {
        let (app, layout) = (&self.app, &self.tools.layout);
        let release = layout.release(&app.id, self.id);
        let root = app.settings.root_dir.as_str();
        let plan = detect(&release, &app.settings, &Machine::here(&self.env))?;
        plan.notes.iter().for_each(|note| self.say(note));
        let mut spec = StartSpec {
            root: root.to_owned(),
            processes: plan.processes.clone(),
            release: plan.release.clone(),
            tools: plan.tools.iter().map(Tool::path).collect(),
            about: self.about(),
            jobs: plan.jobs.clone(),
            ..StartSpec::default()
        };
        if plan.build().is_some() || !plan.tools.is_empty() {
            self.run_build(host, &plan, &spec, &release)?;
        }
        self.take_over(host, &release, plan.build().is_some())?;
        // Looked for again: a build may have changed all of it.
        let tree = Tree::open(&release, root)?;
        match plan.after_build(&tree)? {
            Serve::Process { command, .. } => spec.start = Some(command),
            Serve::Files(dir) => self.publish(&release, &dir, plan.spa)?,
            Serve::Workers => spec.workers_only = true,
        }
        let kept = layout.keep_start_spec(&app.id, self.id, &spec);
        kept.map_err(failed("the release could not be completed"))?;
        Ok(spec)
    }

    /// What builds and the app are told about it.
    fn about(&self) -> Vec<(String, String)> {
        let Tools { store, router, .. } = self.tools;
        let commit = store.deploy(self.id).ok().flatten().and_then(|deploy| deploy.commit);
        let settings = &self.app.settings;
        let domain = settings.domains.first().map(Domain::as_str);
        let url = router.url(self.app.name.as_str(), domain);
        // What is no commit is of no branch.
        let branch = commit.as_ref().map_or("", |_| settings.branch.as_str());
        let all = [
            ("APP_NAME", Some(self.app.name.to_string())),
            ("APP_URL", url),
            ("GIT_COMMIT", commit),
            ("GIT_BRANCH", Some(branch.to_owned()).filter(|branch| !branch.is_empty())),
        ];
        all.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
    }

    fn run_build(
        &self,
        host: &Host,
        plan: &Plan,
        spec: &StartSpec,
        release: &Path,
    ) -> Result<(), DeployFailure> {
        let (app, layout) = (&self.app, &self.tools.layout);
        let wait = || self.say("Waiting until another app's build has ended");
        let turn = self.queue.build_turn(self.id, self.cancel, wait);
        let _turn = turn.ok_or(DeployFailure::Cancelled)?;
        self.has_room()?;
        let run = |sandbox: &Sandbox<'_>, command: &str| self.run_once("build", sandbox, command);
        toolbox::fill(host, layout, &plan.tools, &self.env, &|line| self.say(line), &run)?;
        let Some(command) = plan.build() else { return Ok(()) };
        self.say(&format!("Building: {}", command.split("<<").next().unwrap_or_default()));
        let mut sandbox = surroundings(host, Purpose::Build, app.slot, spec, self.env.clone())
            // One call can take it all, before anybody looks.
            .file_size(layout.space()?.room())
            .bind(release, "/app")
            .bind(&layout.cache(&app.id), "/cache")
            .bind(&layout.temporary(&app.id), "/var/tmp");
        sandbox.shown = Some((layout.tools(), TOOLS_INSIDE));
        let built = run(&sandbox, &command);
        if built.is_err() && layout.no_room().is_some() {
            // It may be its cache that it has filled, and then no deploy would have room.
            layout.discard(&layout.cache(&app.id))?;
        }
        built
    }

    /// Runs a line of shell in a sandbox to its end, with every line of it in the log.
    fn run_once(
        &self,
        name: &'static str,
        sandbox: &Sandbox<'_>,
        command: &str,
    ) -> Result<(), DeployFailure> {
        let must_end = &|| self.tools.layout.no_room();
        let at_most = build::DEADLINE;
        let once = Once { name, sandbox, cancel: self.cancel, must_end, at_most };
        build::run(&once, command, &self.log)
    }

    /// Asks the app as a visitor would, until it answers well.
    fn check(&self, host: &Host, port: u16, instance: &mut Instance) -> Result<(), DeployFailure> {
        let settings = &self.app.settings;
        let check = HealthCheck {
            port,
            uid: host.users.outside_uid(self.app.slot),
            path: &settings.health_path,
            timeout: settings.health_timeout,
            visit: visit(&self.tools.router, &self.app, port),
        };
        let (seconds, path) = (settings.health_timeout.seconds(), settings.health_path.as_str());
        let what = if path.is_empty() { "it answers" } else { "it answers well" };
        let request = &check.visit.request(path);
        self.say(&format!("Checking for up to {seconds} s that {what} on port {port}: {request}"));
        let web = ProcessId::from(&self.app.id);
        match check.wait(instance, self.cancel, &|line| self.say(line)) {
            Verdict::Well => {
                self.tell_of_a_database(self.release());
                Ok(())
            }
            Verdict::Unwell(sentence) => Err(self.unproved(&web, &sentence)),
            Verdict::Cancelled => Err(DeployFailure::Cancelled),
            Verdict::Ended(exit) => {
                let how = how_it_ended(self.tools, (&web, self.id), instance, exit);
                let sentence = format!("the app ended with {how} while it was being checked");
                Err(self.unproved(&web, &sentence))
            }
        }
    }

    /// Why a process has not proved itself; what it wrote stands before that in the log.
    fn unproved(&self, id: &ProcessId, sentence: &str) -> DeployFailure {
        let (why, lines) = with_last_lines(self.tools, id, self.id, sentence);
        if !lines.is_empty() {
            self.say(&format!("The last lines of the app:\n{lines}"));
        }
        why.into()
    }

    /// What has proved itself becomes what is live, processes or files: the router confirms, then
    /// one transaction in the database makes it final.
    fn go_live(
        &self,
        target: &Target,
        mut launched: Vec<Launched>,
        said: &str,
    ) -> Result<(), DeployFailure> {
        self.at.set(GOING_LIVE);
        let (Tools { store, board, mailbox, .. }, app) = (self.tools, &self.app.id);
        let process = launched.iter().find_map(Launched::process);
        let is_static = matches!(target, Target::Files(..));
        let routed = self.lead(target)?;
        // The database decides between this and a cancellation, which ends the deploy there.
        let final_now = store.go_live(self.id, app, process.as_ref(), is_static);
        if !matches!(final_now, Ok(true)) {
            routed.take_back();
            return Err(final_now.map_or_else(Into::into, |_| DeployFailure::Cancelled));
        }
        // Whatever the process before did is over.
        board.clear(app);
        self.say(said);
        if let Target::Process(port) = target {
            self.hold.take().into_iter().for_each(|hold| hold.lead_to(*port));
        }
        launched.iter_mut().for_each(|one| one.instance.keep());
        mailbox.send(Message::TakeOver(app.clone(), launched));
        Ok(())
    }

    /// Leads requests elsewhere, confirmed by the router.
    fn lead(&self, target: &Target) -> Result<Changed<'_>, AnyError> {
        let (Tools { store, router, .. }, app) = (self.tools, &self.app.id);
        let name = || Ok(store.app(app)?.ok_or("the app was removed")?.name);
        router.switch(app, &name, target, &|line| self.say(line))
    }

    fn goes_on(&self) -> Result<(), DeployFailure> {
        if self.cancel.is_cancelled() { Err(DeployFailure::Cancelled) } else { Ok(()) }
    }

    fn has_room(&self) -> Result<(), DeployFailure> {
        self.tools.layout.no_room().map_or(Ok(()), |sentence| Err(sentence.into()))
    }

    /// The deploy whose release this one uses.
    fn release(&self) -> &DeployId {
        self.back_to.as_ref().unwrap_or(self.id)
    }

    /// Writes a line with the time. Not for what a build prints: a time within one of its
    /// lines, which may come in pieces, would hide a secret from the redactor.
    fn say(&self, line: &str) {
        self.log.note(line);
    }

    /// Takes the steps, and notes how it ended.
    fn run(self) {
        let error = match self.steps() {
            Ok(()) => None,
            Err(failure) => {
                // First of all: without space not even the failure could be noted.
                gc::clear_away(self.tools, &self.app.id, self.id);
                self.give_back();
                self.queue.tidy();
                Some(self.explain(failure))
            }
        };
        let noted = self.tools.store.deploy(self.release()).ok().flatten();
        let commit = noted.and_then(|deploy| deploy.commit);
        tell_the_server(self.app.name.as_str(), self.id, commit.as_deref(), error.as_deref());
        if let Some(sentence) = &error {
            note_failure(&self.tools.store, self.queue, self.id, sentence);
        }
    }

    /// Ends the log with the reason, and answers it with the step, which the log has above.
    fn explain(&self, failure: DeployFailure) -> String {
        let (step, sentence) = match failure {
            DeployFailure::Failed(error) => (self.at.get(), error.to_string()),
            DeployFailure::Cancelled => ("", why_cancelled(&self.tools.store, self.queue, self.id)),
        };
        let sentence = self.redactor.redact(&sentence);
        let Tools { store, board, .. } = self.tools;
        if store.app(&self.app.id).is_ok_and(|app| app.is_some_and(|app| board.serves(&app))) {
            self.say("Nothing has changed for visitors: what was live before goes on serving");
        }
        self.say(&format!("Failed: {}", without_last_lines(&sentence)));
        if step.is_empty() { sentence } else { format!("{step} failed: {sentence}") }
    }
}
