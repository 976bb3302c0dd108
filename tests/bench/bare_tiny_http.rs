//! The yardstick of `scripts/bench`: tiny_http as it comes, one thread, one fixed answer behind a header check.
//!
//! Usage: `bare_tiny_http ADDRESS TOKEN FILE`. It has no gate in front, so it shows what the gate costs
//! and what it brings (see assets/manual/benchmarks.md).

use std::process::ExitCode;
use tiny_http::{Header, Request, Response, Server};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, token, file] = arguments.as_slice() else {
        eprintln!("usage: bare_tiny_http ADDRESS TOKEN FILE");
        return ExitCode::from(2);
    };
    match serve(address, token, file) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bare_tiny_http: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(
    address: &str,
    token: &str,
    file: &str,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let body = std::fs::read(file)?;
    let wanted = format!("Bearer {token}");
    let json = Header::from_bytes("Content-Type", "application/json").map_err(|()| "bad header")?;
    let server = Server::http(address)?;
    for request in server.incoming_requests() {
        let answer = if is_signed_in(&request, &wanted) {
            Response::from_data(body.clone()).with_header(json.clone())
        } else {
            Response::from_data("").with_status_code(401)
        };
        if let Err(error) = request.respond(answer) {
            eprintln!("bare_tiny_http: {error}");
        }
    }
    Ok(())
}

fn is_signed_in(request: &Request, wanted: &str) -> bool {
    request.headers().iter().any(|h| h.field.equiv("Authorization") && h.value.as_str() == wanted)
}
