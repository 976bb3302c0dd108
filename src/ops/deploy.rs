//! `server deploy`: what is to run comes as a tar archive on standard input, or is the sample.

use super::protocol::Request;
use super::run::ask;
use crate::model::AnyError;
use rustix::termios::isatty;
use std::io::stdin;

/// Sends the archive and prints the deploy's log; 0 when it is live.
///
/// # Errors
/// When it did not go live, no server runs or it goes before the end.
pub fn run(app: String) -> Result<u8, AnyError> {
    if isatty(stdin()) {
        return Err("an archive is wanted on standard input, as in \
                    `tar -C dist -c . | server deploy APP -`"
            .into());
    }
    // Its log comes through a pipe of its own, so that the server never waits in one of others.
    ask(|_| Request::Deploy { app }, false)
}

/// Deploys the sample, as an app of that name, and prints the log; 0 when it is live.
///
/// # Errors
/// As [`run`], or when there is another app with that name.
pub fn sample() -> Result<u8, AnyError> {
    ask(|_| Request::Sample, false)
}
