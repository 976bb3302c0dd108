//! The HTTP API: one match is the route table, reading it is reading the API.
//!
//! This room knows requests and answers as plain data, no sockets: `serve`
//! brings them from `tiny_http` and back. A handler that needs a signed-in
//! owner takes a [`Session`], which only [`crate::auth`] can make.

mod apps;
mod assets;
mod audit;
mod backups;
mod deploys;
mod detect;
mod domains;
mod env;
mod error;
mod fields;
mod hooks;
mod jobs;
mod logs;
mod precondition;
mod processes;
mod query;
mod runs;
mod security;
mod settings;
mod system;

pub use assets::compress_assets;
pub use deploys::DeployView;
pub use error::ApiError;
pub use hooks::{HOOKS, hook_fields};
pub use system::{MachineFacts, host_name};

use crate::auth::{Auth, Session, Verdict};
use crate::backup::keeper::Keeper;
use crate::checks::{Board, Finding};
use crate::deploy::Deployer;
use crate::gate::answer::Answer;
use crate::journal::Journal;
use crate::model::Client;
use crate::notify::Notices;
use crate::store::Store;
use apps::act;
use fields::no_body;
use query::parameters;
use serde_json::Value;
use std::sync::Arc;
use std::time::Instant;

/// The methods that some route takes; a path's `Allow` is found by trying them.
const METHODS: [&str; 5] = ["GET", "POST", "PUT", "PATCH", "DELETE"];

/// What `/healthz` answers on the socket inside the data directory.
pub const WELL: &str = concat!("ok ", env!("CARGO_PKG_VERSION"));

/// Everything that handlers work with.
pub struct Api {
    /// The database.
    pub store: Arc<Store>,
    /// Who may come in.
    pub auth: Arc<Auth>,
    /// The pipeline.
    pub deployer: Arc<Deployer>,
    /// The log files.
    pub journal: Arc<Journal>,
    /// Who makes backups.
    pub keeper: Arc<Keeper>,
    /// Reads the machine's numbers.
    pub machine: Box<dyn Fn() -> MachineFacts + Send + Sync>,
    /// What the checklist is told, and has found.
    pub board: Arc<Board>,
    /// Judges every point of it now.
    pub check: Arc<dyn Fn() -> Vec<Finding> + Send + Sync>,
    /// Tells the owner's address of it.
    pub notices: Arc<Notices>,
    /// How the last update went; null where there was none.
    pub last_update: fn() -> Value,
    /// When the server started.
    pub started: Instant,
}

/// Where a request comes from.
#[derive(Debug, Clone, Copy)]
pub enum Peer {
    /// Over the network, through the gate.
    Remote {
        /// From whom.
        client: Client,
        /// Over plain HTTP, as far as that is known.
        plain: bool,
        /// With the header of a proxy that is not trusted.
        unheeded: bool,
    },
    /// From this machine's owner, over the socket inside the data directory,
    /// which nobody else can open. Bad tokens are not counted there, so that
    /// an operator who is locked out finds a way in (P13).
    Local,
}

/// A whole request.
#[derive(Debug)]
pub struct Request<'a> {
    /// The method, upper case.
    pub method: &'a str,
    /// The path as sent, percent-encoded.
    pub path: &'a str,
    /// What follows the question mark.
    pub query: Option<&'a str>,
    /// The `Authorization` header as sent.
    pub authorization: Option<&'a [u8]>,
    /// Who sends it.
    pub peer: Peer,
    /// Its header fields, of which the gate passes on few.
    pub fields: &'a [(&'a str, &'a [u8])],
    /// The body.
    pub body: &'a [u8],
}

impl<'a> Request<'a> {
    /// The first header field of a name that is not empty.
    fn field(&self, name: &str) -> Option<&'a [u8]> {
        let found = self.fields.iter().find(|(n, _)| n.eq_ignore_ascii_case(name));
        found.map(|(_, value)| *value).filter(|value| !value.is_empty())
    }

    fn text(&self, name: &str) -> Option<&'a str> {
        self.field(name).and_then(|value| std::str::from_utf8(value).ok())
    }
}

type Answered = Result<Answer, ApiError>;

/// What a handler for signed-in owners works with; nobody comes by one without a [`Session`].
struct Call<'a> {
    api: &'a Api,
    session: &'a Session,
    request: &'a Request<'a>,
    /// The parts of its path behind `/api`, decoded.
    path: &'a [&'a str],
}

/// What a handler reads of a request besides the path. What it does not read is refused: nobody
/// shall believe that it did something.
#[derive(PartialEq)]
enum Reads {
    Nothing,
    Query,
    Body,
}

impl Reads {
    fn check(&self, request: &Request<'_>) -> Result<(), ApiError> {
        if *self != Self::Query {
            parameters(request.query)?.finish()?;
        }
        // With other methods a body has no meaning (RFC 9110, 9.3).
        if *self != Self::Body && matches!(request.method, "POST" | "PUT" | "PATCH") {
            no_body(request.body)?;
        }
        Ok(())
    }
}

/// A handler, what it reads, and the part of the path that names what it is about.
type Route<'a> = (Reads, fn(&Call<'_>, &str) -> Answered, &'a str);

/// The app of a webhook's delivery, which proves itself otherwise than with the token (P3).
fn hook<'a>(method: &str, path: &'a [String]) -> Option<&'a str> {
    match (method, &borrowed(path)[..]) {
        ("POST", ["hooks", id]) => Some(id),
        _ => None,
    }
}

fn borrowed(path: &[String]) -> Vec<&str> {
    path.iter().map(String::as_str).collect()
}

/// The route table: every other path under `/api`. All of it is behind the token (P3).
fn route<'a>(method: &str, path: &[&'a str]) -> Option<Route<'a>> {
    use Reads::{Body, Nothing, Query};
    Some(match (method, path) {
        ("GET", ["session"]) => (Nothing, system::session, ""),
        ("POST", ["ws-ticket"]) => (Nothing, security::ws_ticket, ""),
        ("GET", ["apps"]) => (Nothing, apps::list, ""),
        ("POST", ["apps"]) => (Body, apps::create, ""),
        ("GET", ["apps", id]) => (Nothing, apps::show, id),
        ("PATCH", ["apps", id]) => (Body, apps::change, id),
        ("DELETE", ["apps", id]) => (Query, apps::remove, id),
        ("GET", ["apps", id, "env"]) => (Nothing, env::show, id),
        ("GET", ["apps", id, "domains"]) => (Nothing, domains::list, id),
        ("PUT", ["apps", id, "env"]) => (Body, env::replace, id),
        ("GET", ["apps", id, "jobs"]) => (Nothing, jobs::list, id),
        ("PUT", ["apps", id, "jobs"]) => (Body, jobs::replace, id),
        ("POST", ["apps", id, "jobs", _, "run"]) => (Nothing, jobs::run, id),
        ("GET", ["apps", id, "jobs", _, "runs"]) => (Nothing, jobs::runs, id),
        ("GET", ["apps", id, "processes"]) => (Nothing, processes::list, id),
        ("PATCH", ["apps", id, "processes", _]) => (Body, processes::scale, id),
        ("GET", ["apps", id, "deploys"]) => (Query, deploys::history, id),
        ("POST", ["apps", id, "deploys"]) => (Nothing, deploys::create, id),
        ("POST", ["apps", id, "rollback"]) => (Body, deploys::roll_back, id),
        ("GET", ["apps", id, "log"]) => (Query, apps::log, id),
        ("POST", ["apps", id, "webhook"]) => (Nothing, hooks::renew, id),
        ("DELETE", ["apps", id, "webhook"]) => (Nothing, hooks::remove, id),
        ("POST", ["apps", id, "stop"]) => (Nothing, |c, id| act(c, id, Deployer::stop_app), id),
        ("POST", ["apps", id, "start"]) => (Nothing, |c, id| act(c, id, Deployer::start_app), id),
        ("POST", ["apps", id, "restart"]) => {
            (Nothing, |c, id| act(c, id, Deployer::restart_app), id)
        }
        ("POST", ["apps", id, "run"]) => (Body, runs::start, id),
        ("GET", ["apps", id, "runs"]) => (Nothing, runs::list, id),
        ("GET", ["runs", id, "log"]) => (Query, runs::log, id),
        ("POST", ["runs", id, "cancel"]) => (Nothing, runs::cancel, id),
        ("GET", ["deploys", id]) => (Nothing, deploys::show, id),
        ("POST", ["deploys", id, "cancel"]) => (Nothing, deploys::cancel, id),
        ("GET", ["deploys", id, "log"]) => (Query, deploys::log, id),
        ("POST", ["detect"]) => (Body, detect::detect, ""),
        ("POST", ["deploy"]) => (Body, deploys::one_line, ""),
        ("GET", ["settings", "github-token"]) => (Nothing, settings::github_token, ""),
        ("PUT", ["settings", "github-token"]) => (Body, settings::save_github_token, ""),
        ("DELETE", ["settings", "github-token"]) => (Nothing, settings::delete_github_token, ""),
        ("GET", ["settings", "notifications"]) => (Nothing, settings::notifications, ""),
        ("PUT", ["settings", "notifications"]) => (Body, settings::save_notifications, ""),
        ("DELETE", ["settings", "notifications"]) => (Nothing, settings::delete_notifications, ""),
        ("POST", ["settings", "notifications", "test"]) => (Nothing, settings::notify_now, ""),
        ("GET", ["security", "check"]) => (Query, security::check, ""),
        ("GET", ["security", "lockouts"]) => (Nothing, security::lockouts, ""),
        ("DELETE", ["security", "lockouts", client]) => (Nothing, security::clear_lockout, client),
        ("POST", ["security", "rotate-token"]) => (Nothing, security::rotate_token, ""),
        ("GET", ["audit"]) => (Query, audit::list, ""),
        ("GET", ["backups"]) => (Nothing, backups::list, ""),
        ("POST", ["backups"]) => (Nothing, backups::make, ""),
        ("GET", ["backups", name]) => (Nothing, backups::download, name),
        ("DELETE", ["backups", name]) => (Nothing, backups::remove, name),
        ("GET", ["system"]) => (Nothing, system::system, ""),
        ("GET", ["openapi.json"]) => (Nothing, assets::openapi, ""),
        _ => return None,
    })
}

impl Api {
    /// Answers a request. Errors become answers too.
    pub fn answer(&self, request: &Request<'_>) -> Answer {
        let path = request.path.strip_prefix('/').unwrap_or(request.path);
        match path.split_once('/').unwrap_or((path, "")) {
            ("api", rest) => self.under_api(request, rest),
            ("ws", _) => self.without_upgrade(request),
            // Which version is nobody else's business.
            ("healthz", "") if matches!(request.peer, Peer::Local) => Answer::text(WELL.as_bytes()),
            _ => match self.locked_out(request) {
                Some(seconds) => ApiError::locked(seconds).into(),
                None => assets::answer(request, path),
            },
        }
    }

    /// Everything under `/api`.
    fn under_api(&self, request: &Request<'_>, path: &str) -> Answer {
        let decoded = path.split('/').map(query::decode_segment).collect::<Result<Vec<_>, _>>();
        if let Some(app) = decoded.as_ref().ok().and_then(|path| hook(request.method, path)) {
            let answer = hooks::receive(self, request, app);
            audit::delivered(self, request, app, &answer);
            return answer.unwrap_or_else(Answer::from);
        }
        match self.enter(request) {
            Ok(session) => {
                let answer = decoded.and_then(|path| self.routed(request, &path, &session));
                let mut answer = answer.unwrap_or_else(Answer::from);
                answer.proved = true;
                answer
            }
            Err(error) => error.into(),
        }
    }

    /// A plain request where only WebSockets are: the token counts here too.
    fn without_upgrade(&self, request: &Request<'_>) -> Answer {
        self.enter(request).map_or_else(|error| error, |_| ApiError::upgrade_required()).into()
    }

    /// P8: during a lockout a token is refused everywhere, also where it does not count.
    fn locked_out(&self, request: &Request<'_>) -> Option<u32> {
        request.authorization.and_then(bearer)?;
        match request.peer {
            Peer::Remote { client, .. } => self.auth.locked_out(client),
            Peer::Local => None,
        }
    }

    /// Who may come in.
    fn enter(&self, request: &Request<'_>) -> Result<Session, ApiError> {
        let presented = request.authorization.and_then(bearer);
        let verdict = match request.peer {
            Peer::Remote { client, .. } => self.auth.decide(presented, client),
            Peer::Local => self.auth.decide_local(presented),
        };
        match verdict {
            Verdict::Allowed(session) => {
                security::note_way(&self.board, request.peer);
                Ok(session)
            }
            Verdict::Locked { retry_after_seconds } => Err(ApiError::locked(retry_after_seconds)),
            Verdict::Refused => Err(ApiError::wrong_token()),
            Verdict::Anonymous => Err(ApiError::no_token()),
        }
    }

    fn routed(
        &self,
        request: &Request<'_>,
        path: &[String],
        session: &Session,
    ) -> Result<Answer, ApiError> {
        let segments = borrowed(path);
        // HEAD is GET whose body is left out on the way.
        let method = if request.method == "HEAD" { "GET" } else { request.method };
        if let Some((reads, handler, subject)) = route(method, &segments) {
            let call = Call { api: self, session, request, path: &segments };
            let is_act = audit::is_act(method, &segments);
            // Before it is removed.
            let app = is_act.then(|| audit::app_of(&self.store, &segments)).flatten();
            let answer = reads.check(request).and_then(|()| handler(&call, subject));
            if is_act {
                audit::requested(&call, app, &answer);
            }
            return answer;
        }
        let exists = |m: &&str| hook(m, path).is_some() || route(m, &segments).is_some();
        let allowed: Vec<&str> = METHODS.into_iter().filter(exists).collect();
        Err(if allowed.is_empty() { ApiError::no_route() } else { ApiError::method(&allowed) })
    }
}

/// The token in an `Authorization` header: the scheme in any case, one space,
/// then the token exactly as it stands (P6). Another scheme carries no token.
fn bearer(header: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = header.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then_some(token)
}

#[cfg(test)]
mod tests {
    use super::bearer;

    #[test]
    fn the_scheme_may_have_any_case_and_the_token_is_taken_as_sent() {
        assert_eq!(bearer(b"Bearer abc"), Some(&b"abc"[..]));
        assert_eq!(bearer(b"bEARER  abc"), Some(&b" abc"[..]));
        assert_eq!(bearer(b"Bearer "), Some(&b""[..]));
        for other in [&b"Basic abc"[..], b"Bearer", b"", b"Bearer\tabc", b"abc"] {
            assert_eq!(bearer(other), None);
        }
    }
}
