//! Where an app's requests go, as the database knows it.

use crate::model::Wanted;
use crate::router::Target;
use crate::store::App;

/// Where the requests of an app go.
pub fn target_of(app: &App) -> Target {
    let files = app.live_release.as_ref().filter(|_| app.is_static);
    match (app.wanted, files, app.port()) {
        (Wanted::Stopped, ..) => Target::Down,
        (Wanted::Running, Some(live), _) => Target::Files(app.id.clone(), live.clone()),
        (Wanted::Running, None, Some(port)) => Target::Process(port),
        (Wanted::Running, None, None) => Target::Down,
    }
}
