//! The saved GitHub token: whether there is one, never which.

use super::fields::{Fields, token};
use super::{Answer, Answered, Call};
use serde_json::json;

pub(super) fn github_token(Call { api, .. }: &Call<'_>, _: &str) -> Answered {
    let saved_at = api.store.github_token_saved_at()?;
    Ok(Answer::json(200, &json!({"saved": saved_at.is_some(), "savedAt": saved_at})))
}

pub(super) fn save_github_token(call: &Call<'_>, _: &str) -> Answered {
    let Call { api, request, .. } = call;
    let mut fields = Fields::of(request.body)?;
    let token = fields.required("token", token)?;
    fields.finish()?;
    api.store.set_github_token(Some(&token))?;
    for app in api.store.apps()? {
        api.refresh_redactor(&app.id)?;
    }
    github_token(call, "")
}

pub(super) fn delete_github_token(Call { api, .. }: &Call<'_>, _: &str) -> Answered {
    api.store.set_github_token(None)?;
    Ok(Answer::no_content())
}
