//! Runs a command in a sandbox to its end: a build, and whatever else is no app's own process.

use crate::disk::space::watched;
use crate::journal::Writer;
use crate::model::AnyError;
use crate::proc::{Cancel, Exec, Exit};
use crate::sandbox::bwrap::Sandbox;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

/// Where a command runs, and what ends it before it does so itself; all that it has started ends
/// with it.
pub struct Once<'a> {
    /// What it is called: `build`, `release` or `command`.
    pub name: &'static str,
    /// Where.
    pub sandbox: &'a Sandbox<'a>,
    /// What ends it.
    pub cancel: &'a Cancel,
    /// Says why it has to end, as soon as it has: mostly that the disk is too full.
    pub must_end: &'a (dyn Fn() -> Option<String> + Sync),
    /// How long it may take.
    pub at_most: Duration,
}

impl Once<'_> {
    /// Runs an argument list without input, and writes its output into a log, line by line;
    /// each line is told too. With more than so many bytes it is ended.
    ///
    /// # Errors
    /// When it could not be started, or had to end.
    pub fn logged(
        &self,
        command: &[&str],
        (log, mut left): (&Writer, usize),
        each: &mut dyn FnMut(&str),
    ) -> Result<Exit, AnyError> {
        let mut take = |piece: &[u8]| {
            let taken = piece.len().min(left);
            left -= taken;
            log.output(&piece[..taken], each);
            taken == piece.len()
        };
        let run = |exec: Exec, stop: &Cancel| Ok(exec.joined().pieces(&mut take, stop)?.exit);
        let ended = self.run(command, run);
        log.output(&[], each);
        ended
    }

    /// Runs an argument list with these as its input, output and errors. A terminal among
    /// them, which must be the first then, becomes the one that it is controlled by.
    ///
    /// # Errors
    /// As [`Once::logged`].
    pub fn attached(&self, command: &[&str], streams: [OwnedFd; 3]) -> Result<Exit, AnyError> {
        self.run(command, |exec, stop| Ok(exec.streams(streams).run_until(stop)?.exit))
    }

    fn run(
        &self,
        command: &[&str],
        run: impl FnOnce(Exec, &Cancel) -> io::Result<Exit>,
    ) -> Result<Exit, AnyError> {
        let exec = self.sandbox.prepare(command).deadline(self.at_most);
        let (exit, why) = watched(self.cancel, self.must_end, |stop| run(exec, stop))?;
        match (exit?, why) {
            (Exit::Cancelled, Some(why)) => {
                Err(format!("the {} was ended: {why}", self.name).into())
            }
            (exit, _) => Ok(exit),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proc::close_inherited;
    use crate::sandbox::bwrap::Purpose;
    use crate::sandbox::host::Host;
    use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};
    use std::fs::File;
    use std::io::{Read as _, Write as _, pipe};
    use std::thread;

    const LONG: Duration = Duration::from_secs(60);

    fn attached(command: &[&str], streams: [OwnedFd; 3], at_most: Duration) -> Exit {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::here(dir.path());
        let sandbox = Sandbox::new(&host, Purpose::Once, 7).env("PATH", "/usr/bin:/bin");
        let cancel = &Cancel::new().unwrap();
        let (name, must_end) = ("command", &|| None);
        let once = Once { name, sandbox: &sandbox, cancel, must_end, at_most };
        once.attached(command, streams).unwrap()
    }

    #[test]
    fn three_streams_are_all_that_a_command_has_open_and_what_it_leaves_ends_with_it() {
        // Of what started the tests, which the server closes at its start.
        close_inherited();
        let [(stdin, mut tell), (mut said, out), (mut erred, err)] =
            [pipe().unwrap(), pipe().unwrap(), pipe().unwrap()];
        tell.write_all(b"in").unwrap();
        drop(tell);
        let script = "cat; echo err >&2; sleep 600 & ls /proc/self/fd; exit 3";
        let streams = [stdin.into(), out.into(), err.into()];
        let ended = attached(&["/bin/sh", "-c", script], streams, LONG);
        assert_eq!(ended, Exit::Code(3));
        let (mut out, mut err) = (String::new(), String::new());
        said.read_to_string(&mut out).unwrap();
        erred.read_to_string(&mut err).unwrap();
        // The last one is the directory that `ls` itself reads.
        assert_eq!((&*out, &*err), ("in0\n1\n2\n3\n", "err\n"));
    }

    /// Asks what a terminal is asked, and types into it for others.
    const ASKS: &str = "
import errno, fcntl, os, signal
print(os.isatty(0), os.tcgetpgrp(0) == os.getpgrp(), os.getsid(0) == os.getpid())
print(open('/dev/tty').fileno() > 2)
for call, what in [(0x5412, b'x'), (0x541C, b'\\x03')]:
    try: fcntl.ioctl(0, call, what); print('typed')
    except OSError as e: print(errno.errorcode[e.errno])
print('ready', flush=True)
signal.pause()
";

    #[test]
    fn a_terminal_is_the_commands_own_and_lets_it_type_nothing() {
        let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        unlockpt(&ours).unwrap();
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let theirs = ioctl_tiocgptpeer(&ours, flags).unwrap();
        let streams = [theirs.try_clone().unwrap(), theirs.try_clone().unwrap(), theirs];
        let mut ours = File::from(ours);
        let reader = thread::spawn(move || {
            let mut said = String::new();
            let mut piece = [0; 4096];
            // The other side's end is an error (EIO).
            while let Ok(read) = ours.read(&mut piece) {
                said += &String::from_utf8_lossy(&piece[..read]);
                if said.ends_with("ready\r\n") {
                    ours.write_all(b"\x03").unwrap();
                }
            }
            said
        });
        let ended = attached(&["python3", "-c", ASKS], streams, LONG);
        // By the key, not at the deadline.
        assert!(matches!(ended, Exit::Code(_)), "{ended:?}");
        let said = reader.join().unwrap();
        let begin = "True True True\r\nTrue\r\nEPERM\r\nEPERM\r\nready\r\n^C";
        assert!(said.starts_with(begin), "{said}");
    }
}
