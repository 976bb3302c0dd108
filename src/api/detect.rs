//! What would become of a repository, before it is an app.

use super::fields::{Fields, token};
use super::{Answer, Answered, Call};
use crate::deploy::look::look;
use crate::gate::answer::Body;
use crate::model::{Branch, RepoUrl, RootDir};
use crate::store::AppSettings;
use std::io;
use std::sync::Arc;

/// Looks at it: in a worker, since the repository's host takes its time.
pub(super) fn detect(Call { api, request, .. }: &Call<'_>, _: &str) -> Answered {
    let mut fields = Fields::of(request.body)?;
    let settings = AppSettings {
        branch: fields.text("branch", Branch::parse)?.unwrap_or_default(),
        root_dir: fields.text("rootDir", RootDir::parse)?.unwrap_or_default(),
        ..AppSettings::default()
    };
    let url = fields.required("gitRepo", RepoUrl::read)?;
    let token = fields.text("gitToken", token)?;
    fields.finish()?;
    let tools = Arc::clone(&api.deployer.tools);
    let seen = move || look(&tools, &url, &settings, token.clone());
    let make = move || serde_json::to_vec(&seen()).map_err(io::Error::other);
    Ok(Answer::json_bytes(200, Body::Made(Box::new(make))))
}
