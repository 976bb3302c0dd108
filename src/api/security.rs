//! Tickets, lockouts and the token's rotation.

use super::{Answer, Api, ApiError, Request};
use crate::auth::{Session, TICKET_LIFETIME};
use crate::model::Client;
use serde_json::json;

pub(super) fn ws_ticket(api: &Api, session: &Session, _: &Request<'_>) -> Result<Answer, ApiError> {
    let ticket = api.auth.open_ticket(session)?;
    let seconds = TICKET_LIFETIME / 1000;
    Ok(Answer::json(200, &json!({"ticket": ticket.expose(), "expiresInSeconds": seconds})))
}

pub(super) fn lockouts(api: &Api, _: &Session, _: &Request<'_>) -> Result<Answer, ApiError> {
    let listed: Vec<_> = api
        .auth
        .lockouts()
        .iter()
        .map(|l| {
            json!({"client": l.client.to_string(), "failures": l.failures, "lockedUntilAt": l.until})
        })
        .collect();
    Ok(Answer::json(200, &json!({"lockouts": listed})))
}

pub(super) fn clear_lockout(api: &Api, _: &Session, client: &str) -> Result<Answer, ApiError> {
    let client = Client::parse(client).map_err(|e| ApiError::field("client", e))?;
    if !api.auth.clear(client) {
        let text =
            "nothing is counted against this client; 'server lockouts' lists who is locked out";
        return Err(ApiError::new(404, "lockout_not_found", text));
    }
    log::info!("the lockout of {client} was cleared by the owner");
    Ok(Answer::no_content())
}

pub(super) fn rotate_token(api: &Api, _: &Session, _: &Request<'_>) -> Result<Answer, ApiError> {
    let token = api.auth.rotate()?;
    Ok(Answer::json(200, &json!({"token": token.expose()})))
}
