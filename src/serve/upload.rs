//! Deploys the archive that an operator's command was given, and writes the log where that says.

use crate::deploy::Deployer;
use crate::journal::{LogOf, Position, Subscription};
use crate::model::{AnyError, AppId};
use crate::proc::{Cancel, wait_any};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pipe::PIPE_BUF;
use std::fs::File;
use std::io::Write as _;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// Bytes of a log that are read before they are written.
const BATCH: usize = 64 << 10;

/// How often it is looked what has become of a deploy.
const TICK: Duration = Duration::from_millis(200);

/// Deploys the archive that is the first stream, the log going to the second. A client that goes
/// hears no more of it, and the deploy goes on.
pub(super) fn run(
    deployer: &Deployer,
    app: &AppId,
    [archive, out, _]: [OwnedFd; 3],
    (client, stop): (&UnixStream, &Cancel),
) -> Result<u8, AnyError> {
    let id = deployer.upload(app, archive)?.id;
    let (mut out, mut log) = (File::from(out), None::<Subscription>);
    let is_gone = || wait_any(&[client.as_fd(), stop.as_fd()], Duration::ZERO).unwrap_or(true);
    while !is_gone() {
        // Asked first: what ends meanwhile has its log by then.
        let deploy = deployer.tools.store.deploy(&id)?.ok_or("the app was removed")?;
        if log.is_none() {
            log = deployer.tools.journal.follow(&LogOf::Deploy(id.clone()), Position::default())?;
        }
        let lines = log.as_mut().map_or_else(Vec::new, |log| log.read(BATCH));
        if lines.is_empty() {
            if deploy.status.is_final() && log.as_ref().is_none_or(Subscription::is_over) {
                return deploy.error.map_or(Ok(0), |error| Err(error.into()));
            }
            let mut news = vec![client.as_fd(), stop.as_fd()];
            news.extend(log.as_ref().and_then(Subscription::fd));
            let _ = wait_any(&news, TICK);
        }
        for line in lines {
            write(&mut out, &(line + "\n"), &is_gone);
        }
    }
    Err("the server stops; deploy again when it is back".into())
}

/// Writes as much at once as makes nobody wait: a client may have stopped reading. What it gave
/// is a pipe that nobody else writes to.
fn write(out: &mut File, line: &str, is_gone: &dyn Fn() -> bool) {
    for piece in line.as_bytes().chunks(PIPE_BUF) {
        while !is_gone() {
            let ready = poll(
                &mut [PollFd::new(out, PollFlags::OUT)],
                Timespec::try_from(TICK).ok().as_ref(),
            );
            if ready.is_ok_and(|ready| ready > 0) {
                // Without a reader it is in the deploy's log all the same.
                let _ = out.write_all(piece);
                break;
            }
        }
    }
}
