//! What live sessions need to know of apps and deploys, answered from the database.

use crate::api::DeployView;
use crate::deploy::{Deployer, host_names::urls};
use crate::journal::{LogOf, Redactor};
use crate::live::{Facts, Followed};
use crate::model::{AppId, AppStatus, DeployId, UnixMillis};
use crate::runtime::status_board;
use crate::store::{Store, StoreError};
use serde::Serialize;
use std::io;
use std::sync::Arc;

/// What a viewer is told of an app each second.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct AppState<'a> {
    id: &'a AppId,
    status: AppStatus,
    restarts: u32,
    next_start_at: Option<UnixMillis>,
    url: Option<String>,
    /// A deploy may come and fail between two messages; a viewer knows by this.
    last_deploy_id: Option<&'a DeployId>,
}

/// Answers the questions of live sessions.
pub(super) struct FromStore {
    pub(super) store: Arc<Store>,
    pub(super) deployer: Arc<Deployer>,
}

impl Facts for FromStore {
    fn json(&self, of: &Followed) -> Option<String> {
        match of {
            Followed::App(_) => None,
            Followed::Ending(LogOf::Deploy(id)) => {
                let deploy = log_error(self.store.deploy(id))??;
                serde_json::to_string(&DeployView::new(&deploy, &self.deployer)).ok()
            }
            Followed::Ending(LogOf::Run(id)) => {
                serde_json::to_string(&log_error(self.store.run(id))??).ok()
            }
        }
    }

    fn ended(&self, of: &Followed) -> Option<bool> {
        let ended = match of {
            Followed::App(id) => self.store.app(id).map(|app| app.map(|_| true)),
            Followed::Ending(LogOf::Deploy(id)) => {
                self.store.deploy(id).map(|deploy| Some(deploy?.status.is_final()))
            }
            Followed::Ending(LogOf::Run(id)) => {
                self.store.run(id).map(|run| Some(run?.finished_at.is_some()))
            }
        };
        // Without an answer the session keeps waiting, and asks again.
        log_error(ended).unwrap_or(Some(false))
    }

    fn app_redactor(&self, id: &AppId) -> io::Result<Redactor> {
        self.store.secrets_of(id).map(Redactor::new).map_err(io::Error::other)
    }

    fn app_states(&self) -> String {
        let apps = log_error(self.store.shared_apps()).unwrap_or_default();
        let states = apps.iter().map(|app| {
            // A process that was started anew answers elsewhere, with the same status.
            let url = urls(&self.deployer.tools.router, app).into_iter().next();
            let status_board::AppState { status, restarts, next_start_at, .. } =
                self.deployer.tools.board.state(app);
            let (id, last_deploy_id) = (&app.id, app.last_deploy.as_ref());
            AppState { id, status, restarts, next_start_at, url, last_deploy_id }
        });
        serde_json::to_string(&states.collect::<Vec<_>>()).unwrap_or_default()
    }
}

/// A session cannot act on a database error; the log can be read.
fn log_error<T>(result: Result<T, StoreError>) -> Option<T> {
    result.inspect_err(|error| log::error!("{error}")).ok()
}
