//! Jobs: what an app has run at times of its own while it is live, and the clock that starts them.

use super::runs::{BUSY, RunError, Runs, STOPPING};
use super::tools::Tools;
use crate::model::{Job, JobName, MINUTE, Schedule, UnixMillis, Wanted, unix_millis};
use crate::store::{App, Run, StoreError};
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
pub fn jobs_of(
    Tools { store, layout, .. }: &Tools,
    app: &App,
) -> Result<Vec<(Job, &'static str)>, StoreError> {
    let release = app.live_release.as_ref();
    let spec = release.and_then(|release| layout.start_spec(&app.id, release));
    let mut declared = spec.map(|spec| spec.jobs).unwrap_or_default();
    let own = store.jobs(&app.id)?;
    declared.retain(|job| !own.iter().any(|other| other.name == job.name));
    let declared = declared.into_iter().map(|job| (job, "app.json"));
    Ok(declared.chain(own.into_iter().map(|job| (job, "owner"))).collect())
}

/// The last run of a job, of its app's runs with the newest first.
#[must_use]
pub fn last_run<'a>(runs: &'a [Run], job: &JobName) -> Option<&'a Run> {
    runs.iter().find(|run| run.job.as_deref() == Some(job.as_str()))
}

/// Starts the jobs whose time has come since the look before, the times while no server ran
/// among them, and answers when to look again.
pub fn look(tools: &Tools, runs: &Arc<Runs>) -> Duration {
    let (file, now) = (tools.layout.jobs_clock(), unix_millis());
    let before = looked_at(&file).unwrap_or(now).min(now);
    match start_due(tools, runs, (before, now)) {
        // What has to wait is still due with the next look.
        Ok(false) => {}
        Ok(true) => {
            let at = UNIX_EPOCH + Duration::from_millis(now.unsigned_abs());
            if let Err(error) = File::create(&file).and_then(|file| file.set_modified(at)) {
                log::error!("the clock of the jobs cannot be noted: {error}");
            }
        }
        Err(error) => log::error!("no jobs are started: {error}"),
    }
    // All times are whole minutes: what the owner has changed by then is seen in time.
    let rest = MINUTE - unix_millis() % MINUTE;
    Duration::from_millis(rest.unsigned_abs()).min(SELDOM)
}

/// When jobs were looked at last, by a server before this one too.
fn looked_at(file: &Path) -> Option<UnixMillis> {
    let since = fs::metadata(file).ok()?.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
    i64::try_from(since.as_millis()).ok()
}

/// Starts what is due; `false` when something of it could not start yet.
fn start_due(
    tools: &Tools,
    runs: &Arc<Runs>,
    look: (UnixMillis, UnixMillis),
) -> Result<bool, StoreError> {
    let mut all = true;
    let apps = tools.store.shared_apps()?;
    let run = |app: &&App| app.wanted == Wanted::Running && app.live_deploy.is_some();
    for app in apps.iter().filter(run) {
        let past = tools.store.runs(&app.id)?;
        for (Job { name, command, schedule }, _) in jobs_of(tools, app)? {
            let last = last_run(&past, &name).map(|run| run.started_at);
            if !is_due(&schedule, last, look) {
                continue;
            }
            match runs.start(&app.id, &command, Some(name.as_str())) {
                Ok(_) => {}
                Err(RunError::Refused(BUSY | STOPPING)) => all = false,
                Err(why) => {
                    let line = format!("The job {name} is not run this time: {why}.");
                    tools.journal.note_app(&app.id, &line);
                }
            }
        }
    }
    Ok(all)
}

/// Whether a time has come after the look before and by this one, for which a job has not run
/// yet: once, however many have.
fn is_due(
    schedule: &Schedule,
    last: Option<UnixMillis>,
    (before, now): (UnixMillis, UnixMillis),
) -> bool {
    // A run of a time that the clock has been set back from says nothing.
    let known = last.filter(|last| *last <= now).unwrap_or(before).max(before);
    let next = schedule.next_after(known);
    // But no minute has two.
    let again = |next: UnixMillis| last.is_some_and(|last| last / MINUTE == next / MINUTE);
    next.is_some_and(|next| next <= now && !again(next))
}

#[cfg(test)]
mod tests;
