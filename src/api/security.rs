//! Tickets, lockouts and the token's rotation.

use super::{Answer, Answered, ApiError, Call};
use crate::auth::{Lockout, TICKET_LIFETIME};
use crate::model::Client;
use serde_json::json;

pub(super) fn ws_ticket(Call { api, session, .. }: &Call<'_>, _: &str) -> Answered {
    let ticket = api.auth.open_ticket(session)?;
    let seconds = TICKET_LIFETIME / 1000;
    Ok(Answer::json(200, &json!({"ticket": ticket.expose(), "expiresInSeconds": seconds})))
}

pub(super) fn lockouts(Call { api, .. }: &Call<'_>, _: &str) -> Answered {
    let view = |l: &Lockout| json!({"client": l.client.to_string(), "failures": l.failures, "lockedUntilAt": l.until});
    let listed: Vec<_> = api.auth.lockouts().iter().map(view).collect();
    Ok(Answer::json(200, &json!({"lockouts": listed})))
}

pub(super) fn clear_lockout(Call { api, .. }: &Call<'_>, client: &str) -> Answered {
    let client = Client::parse(client).map_err(|e| ApiError::field("client", e))?;
    if !api.auth.clear(client) {
        let text =
            "nothing is counted against this client; 'server lockouts' lists who is locked out";
        return Err(ApiError::new(404, "lockout_not_found", text));
    }
    log::info!("the lockout of {client} was cleared by the owner");
    Ok(Answer::no_content())
}

pub(super) fn rotate_token(Call { api, .. }: &Call<'_>, _: &str) -> Answered {
    let token = api.auth.rotate()?;
    Ok(Answer::json(200, &json!({"token": token.expose()})))
}
