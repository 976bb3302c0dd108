//! The audit log (P31): a row for each request that may change something, and the list.

use super::query::parameters;
use super::{Answer, Answered, Api, Call, Peer, Request};
use crate::model::{AppId, DeployId, Invalid, RunId};
use crate::store::{Act, App, Store};
use serde_json::json;

/// Rows that a page of the list holds unless asked otherwise, and at most.
const PAGE: u32 = 50;
const MAX_PAGE: u32 = 200;

/// A part of a path that is shown is shorter than any admin token (P4, P7).
const SHOWN: usize = 32;

/// `GET /api/audit`.
pub(super) fn list(Call { api, request, .. }: &Call<'_>, _: &str) -> Answered {
    let mut query = parameters(request.query)?;
    let number = |text: &str| text.parse().map_err(|_| Invalid("is not the number of a row"));
    let before = query.text("before", number)?;
    let limit = query.count("limit", PAGE, MAX_PAGE)?;
    query.finish()?;
    Ok(Answer::json(200, &json!({"audit": api.store.audit_rows(before, limit)?})))
}

/// Whether a request may change something, and so leaves a row.
pub(super) fn is_act(method: &str, path: &[&str]) -> bool {
    method != "GET" && !matches!(path, ["ws-ticket"] | ["detect"])
}

/// The row of a request, which is written before its answer goes. `app` is the one that it was
/// about before it was done.
pub(super) fn requested(call: &Call<'_>, app: Option<App>, answer: &Answered) {
    let Call { api: Api { store, .. }, request, path, .. } = call;
    let who = if let Peer::Local = request.peer { "shell" } else { "admin" };
    // One that was made by this is where the answer says.
    let fields = answer.iter().flat_map(|answer| &answer.fields);
    let location = fields.filter(|(name, _)| *name == "Location").find_map(|(_, location)| {
        Some(location.strip_prefix("/api/")?.split('/').collect::<Vec<_>>())
    });
    let made = || app_of(store, &location?);
    let mut act = made_by(request, who, path).about(app.or_else(made));
    if let Err(error) = answer {
        act.outcome = error.code.to_owned();
    }
    store.audit(&act);
}

/// The row of a webhook's delivery. Those that are not deployed come from whoever likes, and are
/// counted where there are too many.
pub(super) fn delivered(api: &Api, request: &Request<'_>, app: &str, answer: &Answered) {
    let act = made_by(request, "webhook", &["hooks", app]);
    let mut act = act.about(app_of(&api.store, &["apps", app]));
    act.outcome = match answer {
        Ok(answer) if answer.status == 202 => return api.store.audit(&act),
        Ok(_) => "ignored".to_owned(),
        Err(error) => error.code.to_owned(),
    };
    if let Some(text) = api.auth.admit_hook(act.act) {
        api.store.audit(&Act { act: text, ..act });
    }
}

fn made_by(request: &Request<'_>, who: &'static str, path: &[&str]) -> Act {
    let part = |part: &&str| if part.len() < SHOWN { (*part).to_owned() } else { "…".to_owned() };
    let path: Vec<_> = path.iter().map(part).collect();
    let client = match request.peer {
        Peer::Remote { client, .. } => Some(client.to_string()),
        Peer::Local => None,
    };
    Act { client, ..Act::new(who, format!("{} {}", request.method, path.join("/"))) }
}

/// The app that a path is about: its own, or that of its deploy or its run.
pub(super) fn app_of(store: &Store, path: &[&str]) -> Option<App> {
    let id = match path {
        ["apps", id, ..] => AppId::parse(id).ok()?,
        ["deploys", id, ..] => store.deploy(&DeployId::parse(id).ok()?).ok()??.app,
        ["runs", id, ..] => store.run(&RunId::parse(id).ok()?).ok()??.app,
        _ => return None,
    };
    store.app(&id).ok()?
}
