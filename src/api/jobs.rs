//! The jobs of an app: when they run, the owner's own, and their runs.

use super::fields::Fields;
use super::{Answer, Answered, Api, ApiError, Call, precondition};
use crate::model::{Invalid, Job, JobName, MAX_JOBS, Schedule, Wanted, unix_millis};
use crate::runtime::jobs::{jobs_of, last_run};
use crate::store::App;
use serde_json::json;
use std::collections::HashSet;

pub(super) fn list(Call { api, .. }: &Call<'_>, id: &str) -> Answered {
    listed(api, &api.app(id)?)
}

/// Replaces the owner's own jobs; what the repository declares stays.
pub(super) fn replace(Call { api, request, .. }: &Call<'_>, id: &str) -> Answered {
    let app = api.app(id)?;
    precondition::check(request, &tag(api, &app)?)?;
    let mut fields = Fields::of(request.body)?;
    let jobs = fields.objects("jobs", MAX_JOBS, |entry| {
        Ok(Job {
            name: entry.required("name", JobName::parse)?,
            command: entry.required("command", Job::command)?,
            schedule: entry.required("schedule", Schedule::parse)?,
        })
    })?;
    fields.finish()?;
    let mut seen = HashSet::new();
    if !jobs.iter().all(|job| seen.insert(&job.name)) {
        return Err(ApiError::field("jobs", Invalid("names a job twice")));
    }
    ApiError::no_app_unless(api.store.set_jobs(&app.id, &jobs)?)?;
    listed(api, &app)
}

fn listed(api: &Api, app: &App) -> Answered {
    // First, as that of the environment.
    let tag = tag(api, app)?;
    let runs = api.store.runs(&app.id)?;
    let is_live = app.live_deploy.is_some() && app.wanted == Wanted::Running;
    let view = |(Job { name, command, schedule }, from)| {
        let next = schedule.next_after(unix_millis()).filter(|_| is_live);
        json!({
            "name": name, "command": command, "schedule": schedule, "from": from,
            "nextRunAt": next, "lastRun": last_run(&runs, &name),
        })
    };
    let jobs: Vec<_> = jobs_of(&api.deployer.tools, app)?.into_iter().map(view).collect();
    precondition::tagged(&json!({ "jobs": jobs }), tag)
}

/// Of the owner's own: what the repository declares, and when it ran, no list here changes.
fn tag(api: &Api, app: &App) -> Result<String, ApiError> {
    precondition::tag(&api.store.jobs(&app.id)?)
}

/// The job that a path names, and its app.
fn named(Call { api, path, .. }: &Call<'_>, id: &str) -> Result<(App, Job), ApiError> {
    let app = api.app(id)?;
    let jobs = jobs_of(&api.deployer.tools, &app)?.into_iter().map(|(job, _)| job);
    let job = jobs.into_iter().find(|job| path.get(3) == Some(&job.name.as_str()));
    Ok((app, job.ok_or_else(ApiError::no_job)?))
}

pub(super) fn run(call: &Call<'_>, id: &str) -> Answered {
    let (app, job) = named(call, id)?;
    let run = call.api.deployer.runs.start(&app.id, &job.command, Some(job.name.as_str()))?;
    Ok(Answer::json(202, &json!({ "id": run })))
}

pub(super) fn runs(call: &Call<'_>, id: &str) -> Answered {
    let (app, job) = named(call, id)?;
    let mut runs = call.api.store.runs(&app.id)?;
    runs.retain(|run| run.job.as_deref() == Some(job.name.as_str()));
    Ok(Answer::json(200, &json!({ "runs": runs })))
}
