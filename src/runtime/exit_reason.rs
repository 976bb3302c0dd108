//! Why an app has ended, or has not proved itself: the limit that it was over, and what it
//! wrote.

use super::instance::Instance;
use super::launch;
use super::tools::Tools;
use crate::journal::Redactor;
use crate::model::{DeployId, FixedPort, ProcessId, ProcessName};
use crate::proc::Exit;

/// Lines of an app's output that tell why it ended.
const LAST_LINES: usize = 20;

/// Lines of it that are looked at: runtimes write the reason and then a long trace.
const LOOKED_AT: usize = 10 * LAST_LINES;

/// What stands between a reason and those lines.
const ITS_LAST_LINES: &str = "; its last lines:\n";

/// What the platform's own lines in an app's log begin with.
const OWN: &str = "[better-paas] ";

/// Characters of each of them that go into the error.
const LAST_LINE_LENGTH: usize = 300;

/// What runtimes print, in small letters, when they get no more memory: Python, Node and Go,
/// Java, C++, Rust, Ruby, and what asks the C library for the reason.
const NO_MEMORY: [&str; 7] = [
    "memoryerror",
    "out of memory",
    "outofmemoryerror",
    "std::bad_alloc",
    "memory allocation of",
    "failed to allocate memory",
    "cannot allocate memory",
];

/// How a process of an app has ended, with the limit that it was over where that is known,
/// or may well be. `deploy` is the one that has started it.
pub fn how_it_ended(
    tools: &Tools,
    (id, deploy): (&ProcessId, &DeployId),
    instance: &Instance,
    exit: Exit,
) -> String {
    let limit = instance.memory.as_ref().filter(|_| !exit.is_success());
    let says_so = || output_of(tools, id, deploy).iter().any(|line| says(line, &NO_MEMORY));
    match limit.and_then(|limit| limit.exceeded(&says_so)) {
        Some(limit) => format!("{exit} ({limit})"),
        None => exit.to_string(),
    }
}

/// Why an app has not proved itself, with what it wrote, and that alone.
pub fn with_last_lines(
    tools: &Tools,
    id: &ProcessId,
    deploy: &DeployId,
    why: &str,
) -> (String, String) {
    let lines = output_of(tools, id, deploy);
    let short = |line: &String| line.chars().take(LAST_LINE_LENGTH).collect::<String>();
    let last = &lines[lines.len().saturating_sub(LAST_LINES)..];
    let last = last.iter().map(short).collect::<Vec<_>>().join("\n");
    if last.is_empty() {
        return (format!("{why}; it wrote nothing"), last);
    }
    let cure = about_port(&last) + &about_variable(&last) + about_loopback(&last);
    (format!("{why}{cure}{ITS_LAST_LINES}{last}"), last)
}

/// What a process has written, as far as the one before and the others of the app, which write
/// into the same log, let us see it.
fn output_of(
    Tools { store, journal, .. }: &Tools,
    id: &ProcessId,
    deploy: &DeployId,
) -> Vec<String> {
    // Without all secrets known, nothing can be shown.
    let Ok(secrets) = store.secrets_of(&id.app) else { return Vec::new() };
    let tail = journal.app_tail(&id.app, LOOKED_AT, &Redactor::new(secrets));
    let tail = tail.unwrap_or_default();
    let mark = launch::mark(id, deploy);
    let is_mark = |line: &String| line.starts_with(OWN) && line.ends_with(&mark);
    let begun = tail.iter().rposition(is_mark).map_or(0, |at| at + 1);
    tail[begun..].iter().filter_map(|line| written_by(id, line)).map(str::to_owned).collect()
}

/// A line of the app's log as this process has written it; `None` if another one has, or we.
fn written_by<'a>(id: &ProcessId, line: &'a str) -> Option<&'a str> {
    if !id.is_web() {
        return line.strip_prefix(&id.label());
    }
    let label = line.split_once(" | ").and_then(|(label, _)| label.rsplit_once('.'));
    let is_labelled = label.is_some_and(|(name, number)| {
        ProcessName::parse(name).is_ok() && number.parse::<u32>().is_ok()
    });
    (!is_labelled && !line.starts_with(OWN)).then_some(line)
}

/// A reason without the app's output, which may follow it.
pub fn without_last_lines(sentence: &str) -> &str {
    sentence.split_once(ITS_LAST_LINES).map_or(sentence, |(reason, _)| reason)
}

/// Whether a text has any of these words in it, which are in small letters.
fn says(text: &str, words: &[&str]) -> bool {
    let small = text.to_ascii_lowercase();
    words.iter().any(|words| small.contains(words))
}

/// What to do about a port that is taken, or is not for this app, when its output speaks of one.
/// Only the port that we gave it is its own; the old release and other apps hold theirs.
fn about_port(output: &str) -> String {
    let says = |words: &[&str]| says(output, words);
    let taken =
        ["address already in use", "address in use", "eaddrinuse", "cannot find empty port"];
    let what = if says(&taken) {
        "it listens at a port that another program has: an app must listen only at the port \
         that the variable PORT names"
    } else if says(&["listen eacces", "bind: permission denied", "permission denied - bind"])
        || (says(&["permission denied", "errno 13"])
            && says(&["bind", "listen", "socket", "connection to ('"]))
    {
        "it may listen at no other port than that which the variable PORT names"
    } else {
        return String::new();
    };
    format!("; {what}{}", own_port(output))
}

/// What to know where a connection was refused: it may have been the firewall's answer.
fn about_loopback(output: &str) -> &'static str {
    if !says(output, &["connection refused", "econnrefused"]) {
        return "";
    }
    "; a connection of it was refused: where the firewall is loaded no app gets to a port of this \
     machine, its own included (a database is reached by its socket, see *host sockets*)"
}

/// What to do about a variable that the app wants and does not have, when its output names one.
fn about_variable(output: &str) -> String {
    let asks_environment = output.contains("environ[");
    let named = output.lines().rev().find_map(|line| {
        let lacks = asks_environment && line.starts_with("KeyError: ")
            || says(line, &["environment variable", "env variable", "env var"]);
        let mut words = line.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        words.find(|word| lacks && is_variable(word))
    });
    let cure = |name| format!("; it wants the variable {name}: set it in the app's environment");
    named.map(cure).unwrap_or_default()
}

/// Whether a word is written as names of variables are: in capitals, and no abbreviation.
fn is_variable(word: &str) -> bool {
    let is_capital = |b: u8| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_';
    word.starts_with(|c: char| c.is_ascii_uppercase())
        && word.bytes().all(is_capital)
        && (word.contains('_') || word.len() > 5)
}

/// How an app gets the port at which it listens whatever it is told: the last number that can be
/// one, in what it says of ports.
pub fn own_port(said: &str) -> String {
    let of_ports = |line: &&str| {
        // A frame of a stack names lines of a program.
        !line.trim().to_ascii_lowercase().starts_with("at ")
            && says(line, &["listen", "bind", "port", "address", "connection to"])
    };
    let words = said.lines().filter(of_ports).flat_map(|l| l.split(|c: char| !c.is_ascii_digit()));
    let numbers = words.filter_map(|word| word.parse().ok());
    match numbers.filter_map(|number| FixedPort::new(number).ok()).next_back() {
        Some(port) => format!(". If it always listens at {0}, set its port to {0}", port.get()),
        None => ". If it always listens at one port, set that in its settings".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::AppId;

    #[test]
    fn a_taken_port_is_recognised_in_what_runtimes_print() {
        for line in [
            "OSError: [Errno 98] Address already in use",
            "Error: listen EADDRINUSE: address already in use 127.0.0.1:3000",
            "Address already in use - bind(2) for \"127.0.0.1\" port 4567 (Errno::EADDRINUSE)",
        ] {
            assert!(about_port(line).contains("another program"), "{line}");
        }
        let cure = |line| about_port(line).split_once(". ").map(|(_, cure)| cure.to_owned());
        let stack = "Error: listen EACCES: permission denied 0.0.0.0:3000\n    at Server.listen (node:net:2008:7)";
        assert!(about_port(stack).ends_with("set its port to 3000"));
        let three = Some("If it always listens at 3000, set its port to 3000".to_owned());
        assert_eq!(cure("Error: listen EACCES: permission denied 0.0.0.0:3000"), three);
        assert_eq!(
            cure(
                "[7043] [ERROR] connection to ('0.0.0.0', 3000) failed: [Errno 13] Permission denied"
            ),
            three
        );
        let gradio = cure("OSError: Cannot find empty port in range: 7860-7860. You can");
        assert!(gradio.is_some_and(|cure| cure.ends_with("set its port to 7860")));
        let unknown = cure("OSError: [Errno 98] Address already in use\nworker 4213 ended");
        assert!(unknown.is_some_and(|cure| cure.ends_with("set that in its settings")));
        for line in [
            "Error: listen EACCES: permission denied 0.0.0.0:3000",
            "s.bind(('', 3000))\nPermissionError: [Errno 13] Permission denied",
            "listen tcp :8080: bind: permission denied",
            "[ERROR] connection to ('0.0.0.0', 8080) failed: [Errno 13] Permission denied",
            "Permission denied - bind(2) for \"127.0.0.1\" port 4567 (Errno::EACCES)",
        ] {
            assert!(about_port(line).contains("may listen at no other"), "{line}");
        }
        for line in ["KeyError: 'ADDRESS'", "open('/etc/shadow'): Permission denied"] {
            assert_eq!(about_port(line), "");
        }
    }

    #[test]
    fn of_an_apps_log_a_process_has_its_own_lines_alone() {
        let app = AppId::from_random([7; 10]);
        let web = ProcessId::from(&app);
        let name = ProcessName::parse("worker").unwrap();
        let worker = ProcessId { app, name, number: 1 };
        for (line, of_web, of_worker) in [
            ("KeyError: 'A'", Some("KeyError: 'A'"), None),
            ("worker.1 | KeyError: 'A'", None, Some("KeyError: 'A'")),
            ("worker.10 | MemoryError", None, None),
            ("clock.1 | a | b", None, None),
            ("web.1  | a", Some("web.1  | a"), None),
            ("v1.2 of a.1 | b", Some("v1.2 of a.1 | b"), None),
            ("[better-paas] 2026-01-01T00:00:00Z worker.1 | Starting.", None, None),
        ] {
            assert_eq!(written_by(&web, line), of_web);
            assert_eq!(written_by(&worker, line), of_worker);
        }
    }

    #[test]
    fn a_variable_that_is_missing_is_named() {
        for (output, name) in [
            (
                "  'NAME': os.environ[\"PGDATABASE\"],\nKeyError: 'PGDATABASE'\n[ERROR] Reason",
                "PGDATABASE",
            ),
            ("Exception: DATABASE_URL environment variable not defined\n", "DATABASE_URL"),
            (
                "Error: Missing required environment variable: STRIPE_KEY\n    at x (y.js:1:2)",
                "STRIPE_KEY",
            ),
            ("ERROR: environment variable `SECRET_KEY` is not set", "SECRET_KEY"),
        ] {
            let cure = about_variable(output);
            assert!(cure.starts_with(&format!("; it wants the variable {name}: ")), "{cure}");
        }
        let refused = "httpx.ConnectError: [Errno 111] Connection refused";
        assert!(about_loopback(refused).contains("host sockets"));
        assert_eq!(about_loopback("Error: no such table"), "");
        for output in ["KeyError: 'PGDATABASE'", "reads environment variables", "A TOKEN_X b"] {
            assert_eq!(about_variable(output), "", "{output}");
        }
    }

    #[test]
    fn a_lack_of_memory_is_recognised_in_what_runtimes_print() {
        for line in [
            "MemoryError",
            "FATAL ERROR: Reached heap limit Allocation failed - JavaScript heap out of memory",
            "fatal error: runtime: out of memory",
            "memory allocation of 1073741824 bytes failed",
            "fork: Cannot allocate memory",
        ] {
            assert!(says(line, &NO_MEMORY), "{line}");
        }
        assert!(!says("KeyError: 'MEMORY'", &NO_MEMORY));
    }
}
