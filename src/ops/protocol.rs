//! What an operator's command and the running server say to each other over the socket inside
//! the data directory: one [`Request`], a line of JSON beside which the command's three streams
//! travel as open files, and one [`Answer`], another line.
//!
//! Who may open the socket is asked for no token: nobody but the server's user and root may.

use crate::proc::descriptors;
use serde::{Deserialize, Serialize};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

/// The socket, in the data directory.
pub const SOCKET: &str = "ops.sock";

/// Bytes of a line: far more than the kernel passes to a program as one argument.
pub const LONGEST: usize = 256 << 10;

/// What is asked for.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Request {
    /// Deploy the archive that is the first stream; the second one gets the log.
    Deploy {
        /// The app's name or identifier.
        app: String,
    },
    /// Deploy the sample that the program holds; the second stream gets the log.
    Sample,
    /// Run a command in an app's place.
    Run {
        /// Its name or identifier.
        app: String,
        /// An argument list.
        command: Vec<String>,
        /// Which kind of terminal the streams are, when they are one.
        term: Option<String>,
    },
    /// Seal every value with a new key: the one in the file that is sent, or one to be made.
    Rekey,
}

/// The exit code of what was asked for, or the sentence that says why it was not done.
pub type Answer = Result<u8, String>;

/// Reads a line to its end, and the files beside it. `goes_on` waits for each piece of it, and
/// says `false` when there shall be no more.
///
/// # Errors
/// When that is before the end, or the other side says too much, or goes.
pub fn read_line(
    socket: &UnixStream,
    goes_on: impl Fn() -> io::Result<bool>,
) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let (mut line, mut files) = (Vec::new(), Vec::new());
    let mut piece = vec![0; 64 << 10];
    while line.last() != Some(&b'\n') {
        if !goes_on()? {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let (read, more) = descriptors::receive(socket, &mut piece)?;
        if read == 0 || line.len() + read > LONGEST {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        line.extend_from_slice(&piece[..read]);
        files.extend(more);
    }
    Ok((line, files))
}
