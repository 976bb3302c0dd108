//! `server run APP -- COMMAND`: a command in an app's place, at this terminal.
//!
//! At a terminal the command gets a fresh one of its own, and this program passes on what is
//! typed and what it says: so nothing that runs as an app ever has the operator's terminal. What is
//! no terminal, such as a file or a pipe, it gets as it is.

use super::existing;
use super::protocol::{Answer, LONGEST, Request, SOCKET, read_line};
use crate::config::Settings;
use crate::data_dir::DataDir;
use crate::model::{AnyError, failed};
use crate::proc::{descriptors, wait_any};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{
    OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize,
};
use std::fs::File;
use std::io::{self, pipe};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::thread::{JoinHandle, spawn};
use std::time::Duration;

/// Runs the command; its exit code.
///
/// # Errors
/// When no server runs, it refuses, or it goes before the command has ended.
pub fn run(app: String, command: Vec<String>) -> Result<u8, AnyError> {
    ask(|term| Request::Run { app, command, term }, true)
}

/// Has the running server do what is asked for with our streams, or a terminal of the kind that
/// `request` is told. Without `hands_out`, outputs are passed on even where they are no terminal.
pub(super) fn ask(
    request: impl FnOnce(Option<String>) -> Request,
    hands_out: bool,
) -> Result<u8, AnyError> {
    let (socket, _) = connect()?;
    let at_terminal = isatty(io::stdin()) && isatty(io::stdout());
    let mut ours: SigSet =
        [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT].into_iter().collect();
    if at_terminal {
        ours.add(Signal::SIGWINCH);
    }
    // Before there is a second thread, which would take them as usual.
    ours.thread_block()?;
    let signals = SignalFd::with_flags(&ours, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
    let Streams { terminal, theirs, outputs } =
        if at_terminal { Streams::terminal() } else { Streams::own(hands_out) }?;
    let term = terminal.is_some().then(|| std::env::var("TERM").unwrap_or_default());
    let request = serde_json::to_string(&request(term))? + "\n";
    if request.len() > LONGEST {
        return Err("the command is longer than the server takes (256 KiB); put it into a file \
                    and run that"
            .into());
    }
    descriptors::send(&socket, request.as_bytes(), &theirs.each_ref().map(AsFd::as_fd))?;
    // What the command has closed shall end here too.
    drop(theirs);
    while !wait_any(&[socket.as_fd()], Duration::ZERO)? {
        match (signals.read_signal()?, &terminal) {
            (None, _) => drop(wait_any(&[socket.as_fd(), signals.as_fd()], Duration::MAX)?),
            (Some(info), Some((pty, _))) if info.ssi_signo == Signal::SIGWINCH as u32 => {
                tcsetwinsize(pty, tcgetwinsize(io::stdout())?)?;
            }
            // As a shell says it. The server sees this program go, and ends the command.
            (Some(info), _) => return Ok(u8::try_from(128 + info.ssi_signo).unwrap_or(u8::MAX)),
        }
    }
    let (answer, _) = read_line(&socket, || Ok(true))
        .map_err(|_| "the server has ended or was restarted, and the command with it")?;
    if terminal.is_none() {
        // Whoever reads us may have stopped.
        ours.thread_unblock()?;
    }
    for output in outputs {
        let _ = output.join();
    }
    Ok(serde_json::from_slice::<Answer>(&answer)??)
}

/// The socket of the running server.
pub(super) fn connect() -> Result<(UnixStream, DataDir), AnyError> {
    let (_, data) = existing(&Settings::of_this_program()?)?;
    data.holder().ok_or("no server runs on this data directory; start it first")?;
    let socket = UnixStream::connect(data.join(SOCKET))
        .map_err(failed("the running server does not answer; restart it"))?;
    Ok((socket, data))
}

/// What the command gets, and what passes on what goes through this program.
struct Streams {
    /// Our side of its terminal, and what ours was before.
    terminal: Option<(File, Restored)>,
    theirs: [OwnedFd; 3],
    /// They end with the command.
    outputs: Vec<JoinHandle<()>>,
}

impl Streams {
    /// A fresh terminal like ours, but for errors that go elsewhere.
    fn terminal() -> io::Result<Self> {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let pty = openpt(flags)?;
        unlockpt(&pty)?;
        let theirs = ioctl_tiocgptpeer(&pty, flags)?;
        let restored = Restored(tcgetattr(io::stdin())?);
        tcsetattr(&theirs, OptionalActions::Now, &restored.0)?;
        tcsetwinsize(&pty, tcgetwinsize(io::stdout())?)?;
        // From here on every key is the command's.
        let mut raw = restored.0.clone();
        raw.make_raw();
        tcsetattr(io::stdin(), OptionalActions::Now, &raw)?;
        let pty = File::from(pty);
        pass(own(io::stdin())?, pty.try_clone()?);
        let outputs = vec![pass(pty.try_clone()?, own(io::stdout())?)];
        let err = match own(io::stderr())? {
            ours if isatty(&ours) => theirs.try_clone()?,
            ours => ours.into(),
        };
        let theirs = [theirs.try_clone()?, theirs, err];
        Ok(Self { terminal: Some((pty, restored)), theirs, outputs })
    }

    /// Our own, but for what is a terminal, and for all outputs without `hands_out`.
    fn own(hands_out: bool) -> io::Result<Self> {
        let mut outputs = Vec::new();
        let mut output = |ours: File| {
            if hands_out && !isatty(&ours) {
                return Ok(OwnedFd::from(ours));
            }
            let (from, to) = pipe()?;
            outputs.push(pass(OwnedFd::from(from).into(), ours));
            Ok::<_, io::Error>(to.into())
        };
        let (out, err) = (output(own(io::stdout())?)?, output(own(io::stderr())?)?);
        let mut input = OwnedFd::from(own(io::stdin())?);
        if isatty(&input) {
            let (from, to) = pipe()?;
            pass(input.into(), OwnedFd::from(to).into());
            input = from.into();
        }
        Ok(Self { terminal: None, theirs: [input, out, err], outputs })
    }
}

/// What our terminal was like. It is so again when this is dropped.
struct Restored(Termios);

impl Drop for Restored {
    fn drop(&mut self) {
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.0);
    }
}

fn own(stream: impl AsFd) -> io::Result<File> {
    Ok(stream.as_fd().try_clone_to_owned()?.into())
}

/// Passes bytes on until either side ends.
fn pass(mut from: File, mut to: File) -> JoinHandle<()> {
    spawn(move || {
        let _ = io::copy(&mut from, &mut to);
    })
}
