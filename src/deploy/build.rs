//! Runs a command of a deploy, with every line of it in the deploy's log.

use super::error::DeployFailure;
use super::quote::Quote;
use crate::journal::Writer;
use crate::proc::Exit;
use crate::runtime::once::Once;
use std::time::Duration;

/// How long a build may take.
pub const DEADLINE: Duration = Duration::from_secs(15 * 60);

/// Bytes that a build may write.
const OUTPUT_CAP: usize = 10 * 1024 * 1024;

/// Runs a line of shell to its end, or until there is no room, for as long as it may take.
///
/// # Errors
/// [`DeployFailure`], with the lines of the command that say why.
pub fn run(once: &Once<'_>, command: &str, log: &Writer) -> Result<(), DeployFailure> {
    let (mut said, name) = (Quote::default(), once.name);
    let words = ["/bin/sh", "-c", command];
    let exit = once.logged(&words, (log, OUTPUT_CAP), &mut |line| said.push(line))?;
    let quote = said.sentence();
    let sentence = match exit {
        Exit::Code(0) => return Ok(()),
        Exit::Cancelled => return Err(DeployFailure::Cancelled),
        Exit::Code(137) | Exit::Signal(9) => format!(
            "the {name} was killed (signal 9), most likely because it needed more memory than it \
             may have{quote}"
        ),
        Exit::Code(153) | Exit::Signal(25) => format!(
            "the {name} was killed (signal 25): it wrote more into one file than it may, or than \
             the disk has room for{quote}"
        ),
        Exit::TimedOut => too_long(name, once.at_most) + &quote,
        Exit::OutputCapped => {
            format!("the {name} wrote more than {} MiB of output{quote}", OUTPUT_CAP >> 20)
        }
        exit => format!("the {name} command ended with {exit}{quote}"),
    };
    Err(sentence.into())
}

fn too_long(name: &str, at_most: Duration) -> String {
    format!("the {name} took longer than {} minutes", at_most.as_secs() / 60)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data_dir::DataDir;
    use crate::journal::{Journal, LogOf, Redactor};
    use crate::model::{DeployId, Secret};
    use crate::proc::Cancel;
    use crate::sandbox::bwrap::{Purpose, Sandbox};
    use crate::sandbox::host::Host;

    /// Stands for a build that fills the disk.
    const FILLS: &str = "sleep 600";

    fn build(command: &str, cancel: &Cancel) -> (Result<(), DeployFailure>, Vec<String>) {
        build_within(DEADLINE, command, cancel)
    }

    fn build_within(
        at_most: Duration,
        command: &str,
        cancel: &Cancel,
    ) -> (Result<(), DeployFailure>, Vec<String>) {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::here(dir.path());
        let sandbox = Sandbox::new(&host, Purpose::Build, 8).env("PATH", "/usr/bin:/bin");
        let journal = Journal::open(&DataDir::open(&dir.path().join("data")).unwrap()).unwrap();
        let id = LogOf::Deploy(DeployId::parse("dddddddddd").unwrap());
        let redactor = Redactor::new(vec![Secret::new("s3cret-of-the-build".to_owned())]);
        let log = journal.begin(id.clone(), redactor).unwrap();
        let text = || std::fs::read_to_string(journal.file(&id)).unwrap();
        let no_room = || {
            if text() == "cancel me\n" {
                cancel.cancel();
            }
            (command == FILLS).then(|| "no room".to_owned())
        };
        let name = "build";
        let once = Once { name, sandbox: &sandbox, cancel, must_end: &no_room, at_most };
        let result = run(&once, command, &log);
        (result, text().lines().map(str::to_owned).collect())
    }

    fn failed(command: &str) -> String {
        match build(command, &Cancel::new().unwrap()).0 {
            Err(DeployFailure::Failed(error)) => error.to_string(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_build_is_heard_line_by_line_and_says_how_it_failed() {
        let (result, lines) = build("echo one; echo two >&2", &Cancel::new().unwrap());
        assert_eq!((result, lines), (Ok(()), vec!["one".to_owned(), "two".to_owned()]));
        let sentence = failed("echo no such package; echo; exit 2");
        assert_eq!(
            sentence,
            "the build command ended with exit code 2; its last line: no such package"
        );
        assert!(failed("kill -9 $$").contains("more memory"));
        assert!(failed("no-such-tool --build").contains("exit code 127; it says: "));
        assert!(failed("yes").contains("more than 10 MiB"));
        assert!(failed("truncate -s 9G /tmp/x").contains("one file"));
        assert_eq!(failed(FILLS), "the build was ended: no room");
    }

    #[test]
    fn a_secret_at_the_edge_of_the_quote_is_hidden_whole() {
        for before in [0, 285, 295, 299, 8180, 8190] {
            let command =
                format!("printf '%{before}s%s\\n' '' s3cret-of-the-build | tr ' ' x; exit 2");
            let sentence = failed(&command);
            assert!(!sentence.contains("s3c") && !sentence.contains("build\n"), "{sentence}");
            assert!(!sentence.ends_with("the-build"), "{sentence}");
        }
        let colours = failed("printf '\\033[31mbad\\033[0m\\001\\n'; exit 2");
        assert!(colours.ends_with("its last line: bad\\u{1}"), "{colours}");
    }

    #[test]
    fn a_build_can_be_cancelled() {
        let (result, _) = build("echo cancel me; sleep 600", &Cancel::new().unwrap());
        assert_eq!(result, Err(DeployFailure::Cancelled));
    }

    #[test]
    fn a_build_has_a_quarter_of_an_hour() {
        let (at_most, cancel) = (Duration::from_secs(5), Cancel::new().unwrap());
        let (result, lines) = build_within(at_most, "echo begun; sleep 600", &cancel);
        let late = format!("{}; its last line: begun", too_long("build", at_most));
        assert_eq!((result, lines), (Err(late.into()), vec!["begun".to_owned()]));
        assert_eq!(too_long("build", DEADLINE), "the build took longer than 15 minutes");
    }
}
