//! An app's environment; secret values go in and never come out.

use super::fields::Fields;
use super::{Answered, Api, ApiError, Call, precondition};
use crate::journal::Redactor;
use crate::model::{AppId, EnvName, EnvValue, Invalid, MAX_ENV_TOTAL, MAX_ENV_VARS};
use crate::store::{App, EnvEntry, EnvInput};
use serde_json::json;
use std::collections::HashSet;

pub(super) fn show(Call { api, .. }: &Call<'_>, id: &str) -> Answered {
    listed(api, &api.app(id)?)
}

pub(super) fn replace(Call { api, request, .. }: &Call<'_>, id: &str) -> Answered {
    let app = api.app(id)?;
    precondition::check(request, &tag(api, &app)?)?;
    let mut fields = Fields::of(request.body)?;
    let inputs = fields.objects("env", MAX_ENV_VARS, read_input)?;
    fields.finish()?;
    check_together(&inputs)?;
    ApiError::no_app_unless(api.store.replace_env(&app.id, &inputs)?)?;
    api.refresh_redactor(&app.id)?;
    listed(api, &app)
}

fn read_input(entry: &mut Fields) -> Result<EnvInput, ApiError> {
    Ok(EnvInput {
        name: entry.required("name", EnvName::parse)?,
        value: entry.nullable_text("value", EnvValue::parse)?.flatten(),
        secret: entry.boolean("secret")?.unwrap_or(false),
    })
}

fn check_together(inputs: &[EnvInput]) -> Result<(), ApiError> {
    let mut seen = HashSet::new();
    let mut total = 0;
    for input in inputs {
        if !seen.insert(input.name.as_str()) {
            return Err(ApiError::field("env", Invalid("names a variable twice")));
        }
        total += input.name.as_str().len() + input.value.as_ref().map_or(0, |v| v.as_str().len());
    }
    if total > MAX_ENV_TOTAL {
        return Err(ApiError::field("env", Invalid("is too large: at most 128 KiB together")));
    }
    Ok(())
}

fn listed(api: &Api, app: &App) -> Answered {
    // First: a tag that is older than what it stands for is refused, a newer one would lie.
    let tag = tag(api, app)?;
    let entries = api.store.env(&app.id)?;
    let view = |entry: &EnvEntry| match &entry.value {
        Some(value) => {
            json!({"name": entry.name, "secret": entry.secret, "value": value.expose()})
        }
        None => json!({"name": entry.name, "secret": entry.secret}),
    };
    let env: Vec<_> = entries.iter().map(view).collect();
    precondition::tagged(&json!({"env": env}), tag)
}

fn tag(api: &Api, app: &App) -> Result<String, ApiError> {
    precondition::tag(&api.store.env_marks(&app.id)?)
}

impl Api {
    /// Tells those who follow an app's log what they must not see from now on.
    pub(super) fn refresh_redactor(&self, id: &AppId) -> Result<(), ApiError> {
        let secrets = self.store.secrets_of(id)?;
        self.journal.hide_also(id, &Redactor::new(secrets));
        Ok(())
    }
}
