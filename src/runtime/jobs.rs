//! Jobs: what an app has run at times of its own while it is live, and the clock that starts them.

use super::launch::live_spec;
use super::runs::{BUSY, JOBS_BUSY, RunError, Runs, STOPPING};
use super::tools::Tools;
use crate::model::{AppId, Job, JobName, MINUTE, Schedule, UnixMillis, Wanted, unix_millis};
use crate::store::{App, Run, StoreError};
use std::collections::HashMap;
use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

/// The longest time between two looks at the clock, which may be set meanwhile.
const SELDOM: Duration = Duration::from_secs(30);

/// All jobs of an app and where they are from: those that its live release declares, and its
/// owner's, which take the place of others with their names.
///
/// # Errors
/// When the database does not answer.
pub fn jobs_of(tools: &Tools, app: &App) -> Result<Vec<(Job, &'static str)>, StoreError> {
    let mut declared = live_spec(tools, app).map(|spec| spec.jobs).unwrap_or_default();
    let own = tools.store.jobs(&app.id)?;
    declared.retain(|job| !own.iter().any(|other| other.name == job.name));
    let declared = declared.into_iter().map(|job| (job, "app.json"));
    Ok(declared.chain(own.into_iter().map(|job| (job, "owner"))).collect())
}

/// The last run of a job, of its app's runs with the newest first.
pub fn last_run<'a>(runs: &'a [Run], job: &JobName) -> Option<&'a Run> {
    runs.iter().find(|run| run.job.as_deref() == Some(job.as_str()))
}

/// What starts the jobs: it remembers when it last looked, and what had to wait.
pub struct Clock {
    tools: Arc<Tools>,
    runs: Arc<Runs>,
    /// The look before; none yet is noted in a file.
    before: Option<UnixMillis>,
    /// The jobs that found no room when their time had come, with the look before that.
    waiting: HashMap<(AppId, JobName), UnixMillis>,
}

impl Clock {
    /// One that goes on where that of the server before this one ended.
    pub fn new(tools: Arc<Tools>, runs: Arc<Runs>) -> Self {
        Self { tools, runs, before: None, waiting: HashMap::new() }
    }

    /// Starts the jobs whose time has come since the look before, the times while no server ran
    /// among them, and answers when to look again.
    pub fn look(&mut self) -> Duration {
        let (file, now) = (self.tools.layout.jobs_clock(), unix_millis());
        let before = self.before.or_else(|| looked_at(&file)).unwrap_or(now).min(now);
        match self.start_due(before, now) {
            Ok(()) => self.before = Some(now),
            // With the next look all of it is still due.
            Err(error) => log::error!("no jobs are started: {error}"),
        }
        // What waits is caught up by the next server, should this one end.
        if self.before == Some(now) && self.waiting.is_empty() {
            let at = UNIX_EPOCH + Duration::from_millis(now.unsigned_abs());
            if let Err(error) = File::create(&file).and_then(|file| file.set_modified(at)) {
                log::error!("the clock of the jobs cannot be noted: {error}");
            }
        }
        // All times are whole minutes: what the owner has changed by then is seen in time.
        let rest = MINUTE - unix_millis() % MINUTE;
        Duration::from_millis(rest.unsigned_abs()).min(SELDOM)
    }

    /// Starts what is due; what cannot start yet waits.
    fn start_due(&mut self, before: UnixMillis, now: UnixMillis) -> Result<(), StoreError> {
        let mut due = Vec::new();
        let apps = self.tools.store.shared_apps()?;
        let run = |app: &&App| app.wanted == Wanted::Running && app.live_deploy.is_some();
        for app in apps.iter().filter(run) {
            let past = self.tools.store.runs(&app.id)?;
            for (Job { name, command, schedule }, _) in jobs_of(&self.tools, app)? {
                let last = last_run(&past, &name).map(|run| run.started_at);
                let id = (app.id.clone(), name);
                let since = self.waiting.get(&id).map_or(before, |since| *since.min(&before));
                if let Some(at) = due_at(&schedule, last, (since, now)) {
                    due.push((at, since, id, command));
                }
            }
        }
        // Whose time came first, whatever its name: no app goes before the others again and again.
        due.sort_by_key(|(at, ..)| *at);
        self.waiting.clear();
        for (_, since, id, command) in due {
            let (app, name) = &id;
            match self.runs.start(app, &command, Some(name.as_str())) {
                Ok(_) => {}
                Err(RunError::Refused(BUSY | JOBS_BUSY | STOPPING)) => {
                    self.waiting.insert(id, since);
                }
                Err(why) => {
                    let line = format!("The job {name} is not run this time: {why}.");
                    self.tools.journal.note_app(app, &line);
                }
            }
        }
        Ok(())
    }
}

/// When jobs were looked at last, by a server before this one.
fn looked_at(file: &Path) -> Option<UnixMillis> {
    let since = fs::metadata(file).ok()?.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
    i64::try_from(since.as_millis()).ok()
}

/// The time that has come after the look before and by this one, and for which a job has not run
/// yet: the first of them, and once, however many have.
fn due_at(
    schedule: &Schedule,
    last: Option<UnixMillis>,
    (before, now): (UnixMillis, UnixMillis),
) -> Option<UnixMillis> {
    // A run of a time that the clock has been set back from says nothing.
    let known = last.filter(|last| *last <= now).unwrap_or(before).max(before);
    // But no minute has two.
    let again = |next: UnixMillis| last.is_some_and(|last| last / MINUTE == next / MINUTE);
    schedule.next_after(known).filter(|next| *next <= now && !again(*next))
}

#[cfg(test)]
mod tests;
