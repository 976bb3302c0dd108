//! The jobs that an app's repository declares: `cron` in `app.json`, in Dokku's form.

use super::repo::Repo;
use crate::model::{Invalid, Job, JobName, MAX_JOBS, Schedule};
use serde_json::Value;

/// Reads them, and says what is to be said of them. One that is none is left out: the app can do
/// without it, and its deploy does not fail.
pub fn declared(repo: &Repo<'_>, notes: &mut Vec<String>) -> Vec<Job> {
    let cron = repo.json("app.json").and_then(|manifest| match &manifest["cron"] {
        Value::Null => Ok(Vec::new()),
        Value::Array(entries) => Ok(entries.clone()),
        _ => Err("`cron` must be a list".to_owned()),
    });
    let entries = cron.unwrap_or_else(|why| {
        notes.push(format!("The jobs of app.json are left out: {why}."));
        Vec::new()
    });
    let mut jobs = Vec::new();
    for (number, entry) in (1..=MAX_JOBS + 1).zip(&entries) {
        match read(entry, number, &jobs) {
            Ok(job) => jobs.push(job),
            Err(why) => notes.push(format!("Job {number} of app.json is left out: {why}.")),
        }
    }
    if !jobs.is_empty() {
        let named: Vec<_> = jobs.iter().map(|j| format!("{} ({})", j.name, j.schedule)).collect();
        notes.push(format!("Jobs from app.json, in UTC: {}.", named.join(", ")));
    }
    jobs
}

fn read(entry: &Value, number: usize, before: &[Job]) -> Result<Job, String> {
    if number > MAX_JOBS {
        return Err(format!("no more than {MAX_JOBS} are read"));
    }
    let text = |key| entry[key].as_str().ok_or_else(|| format!("its {key} is no text"));
    let broken = |key| move |why: Invalid| format!("its {key} {why}");
    let name = match &entry["name"] {
        Value::Null => format!("cron-{number}"),
        _ => text("name")?.to_owned(),
    };
    if before.iter().any(|job| job.name.as_str() == name) {
        return Err("its name is taken".to_owned());
    }
    Ok(Job {
        name: JobName::parse(&name).map_err(broken("name"))?,
        command: Job::command(text("command")?).map_err(broken("command"))?,
        schedule: Schedule::parse(text("schedule")?).map_err(broken("schedule"))?,
    })
}
