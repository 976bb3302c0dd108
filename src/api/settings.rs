//! What holds for the whole server: the saved GitHub token and the address for findings, of
//! which is said whether there is one, never which.

use super::fields::{Fields, token};
use super::system::host_name;
use super::{Answer, Answered, ApiError, Call};
use crate::gate::answer::Body;
use crate::notify;
use crate::store::Setting;
use serde_json::json;
use std::io;
use std::sync::Arc;

pub(super) fn github_token(Call { api, .. }: &Call<'_>, _: &str) -> Answered {
    let saved_at = api.store.setting_saved_at(Setting::GithubToken)?;
    Ok(Answer::json(200, &json!({"saved": saved_at.is_some(), "savedAt": saved_at})))
}

pub(super) fn save_github_token(call: &Call<'_>, _: &str) -> Answered {
    let Call { api, request, .. } = call;
    let mut fields = Fields::of(request.body)?;
    let token = fields.required("token", token)?;
    fields.finish()?;
    api.store.set_setting(Setting::GithubToken, Some(&token))?;
    for app in api.store.apps()? {
        api.refresh_redactor(&app.id)?;
    }
    github_token(call, "")
}

pub(super) fn delete_github_token(Call { api, .. }: &Call<'_>, _: &str) -> Answered {
    api.store.set_setting(Setting::GithubToken, None)?;
    Ok(Answer::no_content())
}

/// Whether there is an address, never which; and how the last sending went.
pub(super) fn notifications(Call { api, .. }: &Call<'_>, _: &str) -> Answered {
    let saved_at = api.store.setting_saved_at(Setting::NotificationUrl)?;
    let last = api.notices.last();
    Ok(Answer::json(200, &json!({"saved": saved_at.is_some(), "savedAt": saved_at, "last": last})))
}

pub(super) fn save_notifications(call: &Call<'_>, _: &str) -> Answered {
    let Call { api, request, .. } = call;
    let mut fields = Fields::of(request.body)?;
    let url = fields.required("url", notify::address)?;
    fields.finish()?;
    api.store.set_setting(Setting::NotificationUrl, Some(&url))?;
    api.notices.begin_anew();
    notifications(call, "")
}

pub(super) fn delete_notifications(Call { api, .. }: &Call<'_>, _: &str) -> Answered {
    api.store.set_setting(Setting::NotificationUrl, None)?;
    api.notices.begin_anew();
    Ok(Answer::no_content())
}

/// Sends a line to the address: in a worker, since that takes its time.
pub(super) fn notify_now(Call { api, .. }: &Call<'_>, _: &str) -> Answered {
    let no_address = || ApiError::new(409, "no_address", "there is no address yet; save one");
    let url = api.store.setting(Setting::NotificationUrl)?.ok_or_else(no_address)?;
    let host = api.deployer.tools.host.last();
    let host = host.and_then(Result::ok).ok_or_else(|| {
        ApiError::new(503, "not_ready", "the server is looking at its machine; try again")
    })?;
    let notices = Arc::clone(&api.notices);
    let text = format!("Better-PaaS on {}: this is a test.", host_name());
    let make = move || {
        let sent = notices.send(&host, &url, &text);
        serde_json::to_vec(&sent).map_err(io::Error::other)
    };
    Ok(Answer::json_bytes(200, Body::Made(Box::new(make))))
}
