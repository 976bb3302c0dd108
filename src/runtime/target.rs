//! Where an app's requests go, as the database knows it.

use crate::model::{AppId, DeployId, Wanted};
use crate::router::Target;
use crate::store::{App, AppText};

/// Where an app's requests go.
#[must_use]
pub fn target_of(app: &App) -> Target {
    let files = app.live_release.as_ref().filter(|_| app.is_static);
    target(app.wanted, files.map(|live| (app.id.clone(), live.clone())), app.port())
}

/// Where they go, of an app as it is shown.
#[must_use]
pub fn target_of_text(app: &AppText<'_>) -> Target {
    let files = app.live_release.filter(|_| app.is_static);
    let files =
        files.and_then(|live| Some((AppId::parse(app.id).ok()?, DeployId::parse(live).ok()?)));
    target(app.wanted, files, app.port)
}

fn target(wanted: Wanted, files: Option<(AppId, DeployId)>, port: Option<u16>) -> Target {
    match (wanted, files, port) {
        (Wanted::Stopped, ..) => Target::Down,
        (Wanted::Running, Some((app, deploy)), _) => Target::Files(app, deploy),
        (Wanted::Running, None, Some(port)) => Target::Process(port),
        (Wanted::Running, None, None) => Target::Down,
    }
}
