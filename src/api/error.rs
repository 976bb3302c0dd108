//! Errors as the client sees them: a status, a code for programs, a sentence for people.

use crate::auth::AuthError;
use crate::deploy::DeployError;
use crate::gate::answer::Answer;
use crate::runtime::runs::RunError;
use crate::store::StoreError;
use std::borrow::Cow;
use std::fmt::Display;
use std::io::ErrorKind::{QuotaExceeded, StorageFull};

/// A refusal or a failure. Its text is safe to show: nothing of the inside
/// beyond what the owner can act on.
#[derive(Debug)]
pub struct ApiError {
    pub(super) status: u16,
    pub(super) code: &'static str,
    pub(super) message: Cow<'static, str>,
    field: Option<String>,
    header: Option<(&'static str, String)>,
}

impl ApiError {
    pub(super) fn new(
        status: u16,
        code: &'static str,
        message: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self { status, code, message: message.into(), field: None, header: None }
    }

    fn with_header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.header = Some((name, value.into()));
        self
    }

    /// A field that is not what it should be, or an entry of it.
    pub(super) fn field(name: &str, problem: impl Display) -> Self {
        let problem = problem.to_string();
        let colon = if problem.starts_with("entry ") { ":" } else { "" };
        let message = format!("{name}{colon} {problem}");
        Self { field: Some(name.to_owned()), ..Self::new(400, "invalid_field", message) }
    }

    /// A refusal for what is already there, which a field brought about.
    fn about(field: &str, status: u16, code: &'static str, problem: impl Display) -> Self {
        let message = format!("{field}: {problem}");
        Self { field: Some(field.to_owned()), ..Self::new(status, code, message) }
    }

    /// A body that is not the JSON object it should be.
    pub(super) fn body(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(400, "invalid_body", message)
    }

    pub(super) fn no_token() -> Self {
        let text = "sign in first: send the admin token as 'Authorization: Bearer <token>'";
        Self::new(401, "token_missing", text).with_header("WWW-Authenticate", "Bearer")
    }

    pub(super) fn wrong_token() -> Self {
        let text = "this is not the admin token; 'server token' on the machine prints it";
        Self::new(401, "token_wrong", text)
            .with_header("WWW-Authenticate", "Bearer error=\"invalid_token\"")
    }

    pub(super) fn locked(seconds: u32) -> Self {
        let text = format!("too many wrong tokens from this address; try again in {seconds} s");
        Self::new(429, "locked_out", text).with_header("Retry-After", seconds.to_string())
    }

    /// The same for a bad proof, an app without a secret and an app that does not
    /// exist, so that nobody learns which apps there are.
    pub(super) fn unproved_hook() -> Self {
        let text = "this delivery does not prove that it knows the app's webhook secret; give \
                    the secret to the Git host, or make a new one in the app's settings";
        Self::new(401, "signature_wrong", text).with_header("WWW-Authenticate", "Webhook-Signature")
    }

    pub(super) fn upgrade_required() -> Self {
        Self::new(426, "upgrade_required", "this path speaks WebSocket only")
            .with_header("Upgrade", "websocket")
    }

    pub(super) fn no_route() -> Self {
        let text = "there is nothing at this path; GET /api/openapi.json describes what there is";
        Self::new(404, "not_found", text)
    }

    pub(super) fn method(allowed: &[&str]) -> Self {
        let allowed = allowed.join(", ");
        Self::new(405, "method_not_allowed", format!("this path takes {allowed}"))
            .with_header("Allow", allowed)
    }

    pub(super) fn no_app() -> Self {
        Self::new(404, "app_not_found", "there is no app with this id; GET /api/apps lists them")
    }

    /// For a change that found no app, which was removed meanwhile.
    pub(super) fn no_app_unless(is_there: bool) -> Result<(), Self> {
        if is_there { Ok(()) } else { Err(Self::no_app()) }
    }

    pub(super) fn no_process() -> Self {
        let text = "the app's live release has no process of this name that can be scaled (`web` \
                    runs once); GET /api/apps/{id}/processes lists what it has";
        Self::new(404, "process_not_found", text)
    }

    pub(super) fn no_deploy() -> Self {
        let text = "there is no deploy with this id; GET /api/apps/{id}/deploys lists an app's";
        Self::new(404, "deploy_not_found", text)
    }

    pub(super) fn no_run() -> Self {
        let text = "there is no run with this id; GET /api/apps/{id}/runs lists an app's";
        Self::new(404, "run_not_found", text)
    }

    pub(super) fn no_job() -> Self {
        let text = "the app has no job of this name; GET /api/apps/{id}/jobs lists those it has";
        Self::new(404, "job_not_found", text)
    }

    /// A bug here, or something that the owner can do nothing about.
    pub fn internal() -> Self {
        Self::new(500, "internal", "this failed inside the server; its log says why")
    }
}

impl From<ApiError> for Answer {
    fn from(error: ApiError) -> Self {
        let ApiError { status, code, message, field, header } = error;
        let mut answer = Self::error(status, code, &message, field.as_deref());
        if let Some((name, value)) = header {
            answer.header(name, value);
        }
        answer
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::NameTaken => Self::about("name", 409, "name_taken", error),
            StoreError::DomainTaken(_) => Self::about("domains", 409, "domain_taken", error),
            StoreError::NothingToKeep(_) => Self::about("env", 400, "invalid_field", error),
            StoreError::TooManyApps => Self::new(409, "too_many_apps", error.to_string()),
            StoreError::Full => Self::new(507, "disk_full", error.to_string()),
            StoreError::ReadOnly => Self::new(503, "read_only", error.to_string()),
            StoreError::Vault(_) => {
                log::error!("{error}");
                Self::new(500, "value_does_not_open", error.to_string())
            }
            _ => {
                log::error!("{error}");
                Self::new(500, "database", "the database did not answer; the server's log says why")
            }
        }
    }
}

impl From<AuthError> for ApiError {
    fn from(error: AuthError) -> Self {
        match &error {
            AuthError::Pinned => Self::new(409, "token_pinned", error.to_string()),
            AuthError::Unwritable(why) => {
                log::error!("{error}");
                let (status, code) = match why.kind() {
                    StorageFull | QuotaExceeded => (507, "disk_full"),
                    _ => (500, "token_not_saved"),
                };
                Self::new(status, code, format!("{error}; the old one stays in force"))
            }
            AuthError::NoRandomness => Self::new(503, "no_randomness", error.to_string()),
            _ => {
                log::error!("{error}");
                Self::internal()
            }
        }
    }
}

impl From<DeployError> for ApiError {
    fn from(error: DeployError) -> Self {
        match error {
            DeployError::NoApp => Self::no_app(),
            DeployError::Store(error) => error.into(),
            DeployError::NothingToStart => Self::new(409, "nothing_to_start", error.to_string()),
            DeployError::Ended => Self::new(409, "deploy_ended", error.to_string()),
            DeployError::NoRelease => Self::about("deployId", 409, "no_release", error),
            DeployError::Host { field, sentence } => {
                Self::about(field, 409, "host_refused", sentence)
            }
            DeployError::Runtime(sentence) => Self::new(503, "runtime_missing", sentence),
            other => {
                log::error!("{other}");
                Self::internal()
            }
        }
    }
}

impl From<RunError> for ApiError {
    fn from(error: RunError) -> Self {
        match error {
            RunError::Refused(sentence) => Self::new(409, "not_run", sentence),
            RunError::Store(error) => error.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_that_takes_nothing_is_a_5xx_that_says_what_to_do() {
        for (error, status, code, word) in [
            (StoreError::ReadOnly, 503, "read_only", "not be written"),
            (StoreError::Full, 507, "disk_full", "free some space"),
        ] {
            let error = ApiError::from(error);
            assert_eq!((error.status, error.code), (status, code));
            assert!(error.message.contains(word), "{}", error.message);
        }
    }
}
