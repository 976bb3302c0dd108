//! The processes of an app's live release: how they are, and how many of each there are.

use super::fields::Fields;
use super::{Answered, ApiError, Call};
use crate::gate::answer::Answer;
use crate::model::{Invalid, ProcessId, Scale};
use crate::runtime::launch::live_spec;
use crate::runtime::status_board::AppState;
use crate::runtime::tools::Message;
use serde_json::{Value, json};

/// Processes of one name, the first one first.
fn view(name: &str, command: &str, all: impl Iterator<Item = AppState>) -> Value {
    let numbered = all.zip(1..).map(|(state, number)| {
        let mut one = json!(state);
        one["number"] = json!(number);
        one
    });
    let instances: Vec<Value> = numbered.collect();
    json!({"name": name, "command": command, "scale": instances.len(), "instances": instances})
}

pub(super) fn list(call: &Call<'_>, id: &str) -> Answered {
    let app = call.api.app(id)?;
    let tools = &call.api.deployer.tools;
    let (board, spec) = (&tools.board, live_spec(tools, &app).unwrap_or_default());
    let web =
        spec.start.iter().map(|command| view("web", command, [board.state(&app)].into_iter()));
    let others = spec.processes.iter().map(|(name, command)| {
        let id = |number| ProcessId { app: app.id.clone(), name: name.clone(), number };
        let all = (1..=app.settings.scale_of(name)).map(|number| board.worker(&id(number)));
        view(name.as_str(), command, all)
    });
    let processes: Vec<_> = web.chain(others).collect();
    Ok(Answer::json(200, &json!({ "processes": processes })))
}

/// Changes how many there are of a name, at once.
pub(super) fn scale(call: &Call<'_>, id: &str) -> Answered {
    let Call { api, request, path, .. } = call;
    let app = api.app(id)?;
    let mut fields = Fields::of(request.body)?;
    let scale: Option<Scale> = fields.value("scale", "must be a whole number from 0 to 10")?;
    let scale = scale.ok_or_else(|| ApiError::field("scale", Invalid("is missing")))?;
    fields.finish()?;
    let spec = live_spec(&api.deployer.tools, &app).unwrap_or_default();
    let name = spec.processes.keys().find(|name| path.last() == Some(&name.as_str()));
    let mut draft = app.draft();
    draft.settings.scale.insert(name.ok_or_else(ApiError::no_process)?.clone(), scale);
    ApiError::no_app_unless(api.store.update_app(&app.id, &draft)?)?;
    api.deployer.tools.mailbox.send(Message::Scale(app.id));
    list(call, id)
}
