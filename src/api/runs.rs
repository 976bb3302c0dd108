//! Commands that run once in an app's place: start one, list them, read the log, end one.

use super::fields::Fields;
use super::logs;
use super::{Answer, Answered, Api, ApiError, Call};
use crate::journal::LogOf;
use crate::model::{Invalid, RunId, ShellCommand};
use crate::store::Run;
use serde_json::json;

/// Runs in the list of an app's.
const MOST: usize = 100;

/// `POST /api/apps/{id}/run`.
pub(super) fn start(Call { api, request, .. }: &Call<'_>, id: &str) -> Answered {
    let app = api.app(id)?;
    let mut fields = Fields::of(request.body)?;
    let command = fields.required("command", |text| match text.trim() {
        "" => Err(Invalid("is empty; write what is to be run")),
        text => ShellCommand::parse(text),
    })?;
    fields.finish()?;
    api.deployer.check_runtime()?;
    let run = api.deployer.runs.start(&app.id, &command, None)?;
    Ok(Answer::json(202, &find(api, run.as_str())?))
}

pub(super) fn list(Call { api, .. }: &Call<'_>, id: &str) -> Answered {
    let mut runs = api.store.runs(&api.app(id)?.id)?;
    // Beyond them are at most those that are still to be forgotten.
    runs.truncate(MOST);
    Ok(Answer::json(200, &json!({ "runs": runs })))
}

/// `GET /api/runs/{id}/log`.
pub(super) fn log(Call { api, request, .. }: &Call<'_>, id: &str) -> Answered {
    logs::of_one(api, request, LogOf::Run(find(api, id)?.id))
}

/// `POST /api/runs/{id}/cancel`.
pub(super) fn cancel(Call { api, .. }: &Call<'_>, id: &str) -> Answered {
    let run = find(api, id)?;
    if !api.deployer.runs.cancel(&run.id) {
        return Err(ApiError::new(409, "run_ended", "this run has ended already"));
    }
    Ok(Answer::json(202, &run))
}

fn find(api: &Api, id: &str) -> Result<Run, ApiError> {
    let id = RunId::parse(id).map_err(|_| ApiError::no_run())?;
    api.store.run(&id)?.ok_or_else(ApiError::no_run)
}
