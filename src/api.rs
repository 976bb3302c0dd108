//! The HTTP API: one match is the route table, reading it is reading the API.
//!
//! This room knows requests and answers as plain data, no sockets: `serve`
//! brings them from `tiny_http` and back. A handler that needs a signed-in
//! owner takes a [`Session`], which only [`crate::auth`] can make.

mod apps;
mod assets;
mod deploys;
mod domains;
mod env;
mod error;
mod fields;
mod hooks;
mod json;
mod query;
mod security;
mod settings;
mod system;
mod unique;

pub use deploys::DeployView;
pub use error::ApiError;
pub use hooks::{HOOKS, hook_fields};
pub use system::MachineFacts;

use crate::auth::{Auth, Session, Verdict};
use crate::deploy::Deployer;
use crate::gate::answer::Answer;
use crate::journal::Journal;
use crate::model::Client;
use crate::store::Store;
use fields::no_body;
use query::Query;
use std::sync::Arc;
use std::time::Instant;

/// The methods that some route takes; a path's `Allow` is found by trying them.
const METHODS: [&str; 5] = ["GET", "POST", "PUT", "PATCH", "DELETE"];

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
    /// Reads the machine's numbers.
    pub machine: Box<dyn Fn() -> MachineFacts + Send + Sync>,
    /// When the server started.
    pub started: Instant,
}

/// Where a request comes from.
#[derive(Debug, Clone, Copy)]
pub enum Peer {
    /// Over the network, through the gate.
    Remote(Client),
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
    /// The fields that a webhook is judged by; for other requests there are none.
    pub hook: &'a [(&'a str, &'a [u8])],
    /// The body.
    pub body: &'a [u8],
}

type OpenHandler<'a> = Box<dyn FnOnce(&Api, &Request<'_>) -> Result<Answer, ApiError> + 'a>;

type Handler<'a> = Box<dyn FnOnce(&Api, &Session, &Request<'_>) -> Result<Answer, ApiError> + 'a>;

/// A handler for signed-in owners, and what it reads of a request. What it does not read
/// is refused: nobody shall believe that it did something.
struct Route<'a> {
    handler: Handler<'a>,
    reads: Reads,
}

/// What a handler reads besides the path.
#[derive(PartialEq)]
enum Reads {
    Nothing,
    Query,
    Body,
}

impl Route<'_> {
    fn with_query(self) -> Self {
        Self { reads: Reads::Query, ..self }
    }

    fn with_body(self) -> Self {
        Self { reads: Reads::Body, ..self }
    }

    fn check(&self, request: &Request<'_>) -> Result<(), ApiError> {
        if self.reads != Reads::Query {
            Query::of(request.query)?.finish()?;
        }
        // With other methods a body has no meaning (RFC 9110, 9.3).
        if self.reads != Reads::Body && matches!(request.method, "POST" | "PUT" | "PATCH") {
            no_body(request.body)?;
        }
        Ok(())
    }
}

/// Takes care of the closure's type: a route for signed-in owners, whose path says it all.
fn owner<'a>(
    handler: impl FnOnce(&Api, &Session, &Request<'_>) -> Result<Answer, ApiError> + 'a,
) -> Route<'a> {
    Route { handler: Box::new(handler), reads: Reads::Nothing }
}

/// The routes under `/api` that prove themselves otherwise than with the token (P3).
fn open_route<'a>(method: &str, path: &[&'a str]) -> Option<OpenHandler<'a>> {
    Some(match (method, path) {
        ("POST", ["hooks", id]) => Box::new(|api, r| hooks::receive(api, r, id)),
        _ => return None,
    })
}

/// The route table: every other path under `/api`. All of it is behind the token (P3).
fn route<'a>(method: &str, path: &[&'a str]) -> Option<Route<'a>> {
    Some(match (method, path) {
        ("GET", ["session"]) => owner(system::session),
        ("POST", ["ws-ticket"]) => owner(security::ws_ticket),
        ("GET", ["apps"]) => owner(apps::list),
        ("POST", ["apps"]) => owner(apps::create).with_body(),
        ("GET", ["apps", id]) => owner(|api, s, _| apps::show(api, s, id)),
        ("PATCH", ["apps", id]) => owner(|api, s, r| apps::change(api, s, r, id)).with_body(),
        ("DELETE", ["apps", id]) => owner(|api, s, r| apps::remove(api, s, r, id)).with_query(),
        ("GET", ["apps", id, "env"]) => owner(|api, s, _| env::show(api, s, id)),
        ("GET", ["apps", id, "domains"]) => owner(|api, s, _| domains::list(api, s, id)),
        ("PUT", ["apps", id, "env"]) => owner(|api, s, r| env::replace(api, s, r, id)).with_body(),
        ("GET", ["apps", id, "deploys"]) => {
            owner(|api, s, r| deploys::history(api, s, r, id)).with_query()
        }
        ("POST", ["apps", id, "deploys"]) => owner(|api, s, _| deploys::create(api, s, id)),
        ("POST", ["apps", id, "rollback"]) => {
            owner(|api, s, r| deploys::roll_back(api, s, r, id)).with_body()
        }
        ("GET", ["apps", id, "log"]) => owner(|api, s, r| apps::log(api, s, r, id)).with_query(),
        ("POST", ["apps", id, "webhook"]) => owner(|api, s, _| hooks::renew(api, s, id)),
        ("DELETE", ["apps", id, "webhook"]) => owner(|api, s, _| hooks::remove(api, s, id)),
        ("POST", ["apps", id, "stop"]) => {
            owner(|api, s, _| apps::act(api, s, id, Deployer::stop_app))
        }
        ("POST", ["apps", id, "start"]) => {
            owner(|api, s, _| apps::act(api, s, id, Deployer::start_app))
        }
        ("POST", ["apps", id, "restart"]) => {
            owner(|api, s, _| apps::act(api, s, id, Deployer::restart_app))
        }
        ("GET", ["deploys", id]) => owner(|api, s, _| deploys::show(api, s, id)),
        ("POST", ["deploys", id, "cancel"]) => owner(|api, s, _| deploys::cancel(api, s, id)),
        ("GET", ["deploys", id, "log"]) => owner(|api, s, _| deploys::log(api, s, id)),
        ("POST", ["deploy"]) => owner(deploys::one_line).with_body(),
        ("GET", ["settings", "github-token"]) => owner(settings::github_token),
        ("PUT", ["settings", "github-token"]) => owner(settings::save_github_token).with_body(),
        ("DELETE", ["settings", "github-token"]) => owner(settings::delete_github_token),
        ("GET", ["security", "lockouts"]) => owner(security::lockouts),
        ("DELETE", ["security", "lockouts", client]) => {
            owner(|api, s, _| security::clear_lockout(api, s, client))
        }
        ("POST", ["security", "rotate-token"]) => owner(security::rotate_token),
        ("GET", ["system"]) => owner(system::system),
        ("GET", ["openapi.json"]) => owner(assets::openapi),
        _ => return None,
    })
}

impl Api {
    /// Answers a request. Errors become answers too.
    #[must_use]
    pub fn answer(&self, request: &Request<'_>) -> Answer {
        let path = request.path.strip_prefix('/').unwrap_or(request.path);
        match path.split_once('/') {
            Some(("api", rest)) => self.under_api(request, rest),
            _ if path == "api" => self.behind_the_token(request, ""),
            Some(("ws", _)) => self.without_upgrade(request),
            _ if path == "ws" => self.without_upgrade(request),
            _ => match self.locked_out(request) {
                Some(seconds) => ApiError::locked(seconds).into(),
                None => assets::answer(request.method, path),
            },
        }
    }

    /// Everything under `/api`.
    fn under_api(&self, request: &Request<'_>, path: &str) -> Answer {
        if let Ok(decoded) = decoded(path)
            && let Some(handler) = open_route(request.method, &borrowed(&decoded))
        {
            return handler(self, request).unwrap_or_else(Answer::from);
        }
        self.behind_the_token(request, path)
    }

    fn behind_the_token(&self, request: &Request<'_>, path: &str) -> Answer {
        match self.verdict(request) {
            Verdict::Allowed(session) => {
                let mut answer = self.routed(request, path, &session).unwrap_or_else(Answer::from);
                answer.proved = true;
                answer
            }
            Verdict::Locked { retry_after_seconds } => ApiError::locked(retry_after_seconds).into(),
            Verdict::Refused => ApiError::wrong_token().into(),
            Verdict::Anonymous => ApiError::no_token().into(),
        }
    }

    /// A plain request where only WebSockets are: the token counts here too.
    fn without_upgrade(&self, request: &Request<'_>) -> Answer {
        match self.verdict(request) {
            Verdict::Allowed(_) => ApiError::upgrade_required(),
            Verdict::Locked { retry_after_seconds } => ApiError::locked(retry_after_seconds),
            Verdict::Refused => ApiError::wrong_token(),
            Verdict::Anonymous => ApiError::no_token(),
        }
        .into()
    }

    /// P8: during a lockout a token is refused everywhere, also where it does not count.
    fn locked_out(&self, request: &Request<'_>) -> Option<u32> {
        request.authorization.and_then(bearer)?;
        match request.peer {
            Peer::Remote(client) => self.auth.locked_out(client),
            Peer::Local => None,
        }
    }

    fn verdict(&self, request: &Request<'_>) -> Verdict {
        let presented = request.authorization.and_then(bearer);
        match request.peer {
            Peer::Remote(client) => self.auth.decide(presented, client),
            Peer::Local => self.auth.decide_local(presented),
        }
    }

    fn routed(
        &self,
        request: &Request<'_>,
        path: &str,
        session: &Session,
    ) -> Result<Answer, ApiError> {
        let decoded = decoded(path)?;
        let segments = borrowed(&decoded);
        // HEAD is GET whose body is left out on the way.
        let method = if request.method == "HEAD" { "GET" } else { request.method };
        if let Some(route) = route(method, &segments) {
            route.check(request)?;
            return (route.handler)(self, session, request);
        }
        let allowed: Vec<&str> = METHODS.into_iter().filter(|m| exists(m, &segments)).collect();
        Err(if allowed.is_empty() { ApiError::no_route() } else { ApiError::method(&allowed) })
    }
}

fn exists(method: &str, path: &[&str]) -> bool {
    open_route(method, path).is_some() || route(method, path).is_some()
}

/// The segments of a path, percent-decoded.
fn decoded(path: &str) -> Result<Vec<String>, ApiError> {
    path.split('/').map(query::decode_segment).collect()
}

fn borrowed(segments: &[String]) -> Vec<&str> {
    segments.iter().map(String::as_str).collect()
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
