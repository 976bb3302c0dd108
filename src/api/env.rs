//! An app's environment; secret values go in and never come out.

use super::fields::Fields;
use super::{Answer, Api, ApiError, Request};
use crate::auth::Session;
use crate::model::{AppId, EnvName, EnvValue, Invalid, MAX_ENV_TOTAL, MAX_ENV_VARS};
use crate::store::{App, EnvInput};
use serde::Serialize;
use std::collections::HashSet;

#[derive(Serialize)]
struct EnvList<'a> {
    env: Vec<EnvView<'a>>,
}

#[derive(Serialize)]
struct EnvView<'a> {
    name: &'a str,
    secret: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<&'a str>,
}

pub(super) fn show(api: &Api, _: &Session, id: &str) -> Result<Answer, ApiError> {
    listed(api, &api.app(id)?)
}

pub(super) fn replace(
    api: &Api,
    _: &Session,
    request: &Request<'_>,
    id: &str,
) -> Result<Answer, ApiError> {
    let app = api.app(id)?;
    let mut fields = Fields::of(request.body)?;
    let entries = fields.list("env")?;
    fields.finish()?;
    if entries.len() > MAX_ENV_VARS {
        return Err(ApiError::field("env", Invalid("holds too many variables: at most 256")));
    }
    let inputs = entries
        .into_iter()
        .enumerate()
        .map(|(i, entry)| read_input(Fields::nested(entry, &format!("env[{i}]"))?))
        .collect::<Result<Vec<_>, _>>()?;
    check_together(&inputs)?;
    if !api.store.replace_env(&app.id, &inputs)? {
        return Err(ApiError::no_app());
    }
    api.refresh_redactor(&app.id)?;
    listed(api, &app)
}

fn read_input(mut fields: Fields) -> Result<EnvInput, ApiError> {
    let input = EnvInput {
        name: fields.required("name", EnvName::parse)?,
        value: fields.nullable_text("value", EnvValue::parse)?.value(),
        secret: fields.boolean("secret")?.unwrap_or(false),
    };
    fields.finish()?;
    Ok(input)
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

fn listed(api: &Api, app: &App) -> Result<Answer, ApiError> {
    let entries = api.store.env(&app.id)?;
    let env = entries
        .iter()
        .map(|e| EnvView {
            name: e.name.as_str(),
            secret: e.secret,
            value: e.value.as_ref().map(crate::model::Secret::expose),
        })
        .collect();
    Ok(Answer::json(200, &EnvList { env }))
}

impl Api {
    /// Tells those who follow an app's log what they must not see from now on.
    pub(super) fn refresh_redactor(&self, id: &AppId) -> Result<(), ApiError> {
        let secrets = self.store.secrets_of(id)?;
        self.journal.hide_also(id, &crate::journal::Redactor::new(secrets));
        Ok(())
    }
}
