//! Webhooks: a push to the app's branch becomes a deploy.
//!
//! The payload says that something was pushed, and where; it never says what is
//! fetched or run. Nothing of it is read before the delivery has proved that it
//! knows the app's secret.

use super::fields::shown;
use super::query::parameters;
use super::{Answer, Answered, Api, ApiError, Call, Peer, Request};
use crate::auth::hook::{self, Claim, Delivery, fingerprint};
use crate::model::{AppId, Secret, Wanted};
use crate::store::App;
use serde::Deserialize;
use serde_json::json;

/// Where deliveries arrive, each at its app's identifier.
pub const HOOKS: &str = "/api/hooks/";

/// The headers that prove something: of Gitea, Forgejo, GitHub, and the two kinds of GitLab.
const PROOFS: [&str; 5] = [
    "x-gitea-signature",
    "x-forgejo-signature",
    "x-hub-signature-256",
    "x-gitlab-token",
    "webhook-signature",
];

/// What else is signed with `webhook-signature`.
const ID: &str = "webhook-id";
const TIME: &str = "webhook-timestamp";

/// Headers that name the event, of which a host sends one or several alike.
const EVENTS: [&str; 4] = ["x-github-event", "x-gitea-event", "x-forgejo-event", "x-gitlab-event"];

/// Headers in which GitHub, Gitea and Forgejo name the delivery, which they do not sign.
const DELIVERIES: [&str; 3] = ["x-forgejo-delivery", "x-gitea-delivery", "x-github-delivery"];

/// Headers in which GitLab names a delivery that shows the secret itself, the best
/// first: events that one delivery leads to share an event UUID.
const GITLAB_DELIVERIES: [&str; 2] = ["idempotency-key", "x-gitlab-event-uuid"];

/// The headers that a delivery is judged by; no other request needs them.
pub fn hook_fields() -> Vec<&'static str> {
    [&PROOFS[..], &[ID, TIME], &EVENTS, &DELIVERIES, &GITLAB_DELIVERIES].concat()
}

/// The part of a push that counts; GitHub, Gitea, Forgejo and GitLab agree on it.
/// A field that is there twice is an error.
#[derive(Deserialize)]
struct Push {
    #[serde(rename = "ref")]
    reference: String,
    /// GitHub: the branch was removed.
    #[serde(default)]
    deleted: bool,
    /// The commit that was pushed; zeros when the branch was removed.
    #[serde(default)]
    after: Option<String>,
    #[serde(default)]
    repository: Option<Repository>,
    /// GitLab.
    #[serde(default)]
    project: Option<Repository>,
}

#[derive(Deserialize)]
struct Repository {
    #[serde(default)]
    default_branch: Option<String>,
}

/// `POST /api/apps/{id}/webhook`: makes a secret, in place of any before it, and shows it once.
pub(super) fn renew(Call { api, .. }: &Call<'_>, id: &str) -> Answered {
    let app = api.app(id)?;
    let secret = hook::generate()?;
    ApiError::no_app_unless(api.store.set_webhook_secret(&app.id, Some(&secret))?)?;
    api.refresh_redactor(&app.id)?;
    let path = format!("{HOOKS}{}", app.id);
    Ok(Answer::json(200, &json!({"secret": secret.expose(), "path": path})))
}

/// `DELETE /api/apps/{id}/webhook`: from now on no delivery is believed.
pub(super) fn remove(Call { api, .. }: &Call<'_>, id: &str) -> Answered {
    let app = api.app(id)?;
    api.store.set_webhook_secret(&app.id, None)?;
    api.refresh_redactor(&app.id)?;
    Ok(Answer::no_content())
}

/// `POST /api/hooks/{id}`: a delivery.
pub(super) fn receive(api: &Api, request: &Request<'_>, id: &str) -> Result<Answer, ApiError> {
    let app = prove(api, request, id)?;
    parameters(request.query)?.finish()?;
    is_json(request)?;
    let event = EVENTS.iter().find_map(|name| request.text(name)).ok_or_else(|| {
        ApiError::body(
            "the delivery names no event: X-GitHub-Event or that of another host is missing",
        )
    })?;
    match event {
        "push" | "Push Hook" => {}
        "ping" => {
            return Ok(done("pong", "the webhook works; a push to the app's branch is deployed"));
        }
        other => {
            let other = shown(other);
            let why = format!("events of the kind {other} are not deployed, only pushes");
            return Ok(ignored(&why));
        }
    }
    let push: Push = serde_json::from_slice(request.body)
        .map_err(|error| ApiError::body(format!("the body is not the JSON of a push: {error}")))?;
    let branch = match branch_to_deploy(&app, &push) {
        Ok(branch) => branch,
        Err(answer) => return Ok(answer),
    };
    if !app.settings.auto_deploy.0 {
        return Ok(ignored("the app's auto-deploy is off; deploy it by hand, or switch it on"));
    }
    if app.wanted == Wanted::Stopped && app.live_deploy.is_some() {
        return Ok(ignored("the app is stopped and stays so; start it, or deploy it by hand"));
    }
    match api.deployer.request_once(&app.id, &names(request))? {
        None => Ok(done("replayed", "this delivery was taken before; nothing was done")),
        Some(deploy) => Ok(Answer::json(
            202,
            &json!({
                "result": "queued",
                "message": format!("the push to {branch} is being deployed"),
                "deployId": deploy.id.as_str(),
            }),
        )),
    }
}

/// The app, once the delivery has proved that it knows its secret. An app that is not
/// there, one without a secret and a wrong proof are one and the same to the sender.
fn prove(api: &Api, request: &Request<'_>, id: &str) -> Result<App, ApiError> {
    let app = AppId::parse(id).ok();
    let secret = app.as_ref().and_then(|id| secret_of(api, id));
    let claims = claims(request);
    let delivery = Delivery { secret: secret.as_ref(), claims: &claims, body: request.body };
    let client = match request.peer {
        Peer::Remote { client, .. } => Some(client),
        Peer::Local => None,
    };
    let genuine = api.auth.is_genuine(&delivery, client);
    let app = app.filter(|_| genuine).map(|id| api.store.app(&id)).transpose()?;
    app.flatten().ok_or_else(ApiError::unproved_hook)
}

/// A secret that cannot be read verifies nothing; the log says why.
fn secret_of(api: &Api, id: &AppId) -> Option<Secret> {
    api.store.webhook_secret(id).unwrap_or_else(|error| {
        log::error!("a webhook was refused: {error}");
        None
    })
}

/// Everything that the delivery shows as proof. Nothing when it shows one thing twice,
/// which no host does: each may cost a look at the whole body.
fn claims<'a>(request: &Request<'a>) -> Vec<Claim<'a>> {
    let mut claims = Vec::new();
    for name in PROOFS {
        let mut shown = request.fields.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name));
        let Some((_, value)) = shown.next() else { continue };
        if shown.next().is_some() {
            return Vec::new();
        }
        let other = |name| request.field(name).unwrap_or_default();
        claims.push(match name {
            "webhook-signature" => {
                Claim::Signed { id: other(ID), time: other(TIME), signatures: value }
            }
            "x-gitlab-token" => Claim::Plain(value),
            "x-hub-signature-256" => Claim::Hex(value.strip_prefix(b"sha256=").unwrap_or_default()),
            _ => Claim::Hex(value),
        });
    }
    claims
}

/// The names that this delivery goes by: where one is signed, that one alone. A header
/// is not part of what GitHub, Gitea and Forgejo sign, so there the body, which no second
/// push repeats, is a name as well; and it is the only one of a GitLab too old to name its
/// deliveries.
fn names(request: &Request<'_>) -> Vec<String> {
    let named = |headers: &[&str]| headers.iter().find_map(|name| request.field(name));
    let mut names = Vec::new();
    for claim in claims(request) {
        let (id, signed) = match claim {
            Claim::Signed { id, .. } => (Some(id), true),
            Claim::Plain(_) => (named(&GITLAB_DELIVERIES), true),
            Claim::Hex(_) => (named(&DELIVERIES), false),
        };
        names.extend(id.map(|id| fingerprint("id", id)));
        if id.is_none() || !signed {
            names.push(fingerprint("body", request.body));
        }
    }
    names.sort_unstable();
    names.dedup();
    names
}

/// The app's branch, when it is the one that was pushed to; else the answer.
fn branch_to_deploy(app: &App, push: &Push) -> Result<String, Answer> {
    let Some(pushed) = push.reference.strip_prefix("refs/heads/") else {
        return Err(ignored("this is not a push to a branch"));
    };
    let zeros = |commit: &String| !commit.is_empty() && commit.bytes().all(|b| b == b'0');
    if push.deleted || push.after.as_ref().is_some_and(zeros) {
        return Err(ignored("the branch was removed; the app stays as it is"));
    }
    let default = || {
        let of = |r: &Option<Repository>| r.as_ref().and_then(|r| r.default_branch.clone());
        of(&push.repository).or_else(|| of(&push.project))
    };
    let wanted = match app.settings.branch.as_str() {
        "" => default().ok_or_else(|| {
            ApiError::body(
                "the push names no default branch; choose a branch in the app's settings",
            )
        })?,
        chosen => chosen.to_owned(),
    };
    if pushed == wanted {
        return Ok(wanted);
    }
    Err(ignored(&format!("the push is to another branch; the app is deployed from {wanted}")))
}

/// GitHub can also send a form; everybody sends JSON when asked to.
fn is_json(request: &Request<'_>) -> Result<(), ApiError> {
    let given = request.text("content-type").unwrap_or_default();
    let kind = given.split(';').next().unwrap_or_default().trim();
    if kind.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    let text = "the delivery is not JSON: set the webhook's content type to application/json";
    Err(ApiError::new(415, "unsupported_media_type", text))
}

fn ignored(message: &str) -> Answer {
    done("ignored", message)
}

fn done(result: &str, message: &str) -> Answer {
    Answer::json(200, &json!({"result": result, "message": message}))
}
