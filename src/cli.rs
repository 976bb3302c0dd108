//! The command line: words in, a [`Command`] out. No input or output happens here.

#[cfg(test)]
mod tests;

use crate::manual;
use crate::model::{Client, Update};
use std::ffi::OsString;
use std::path::PathBuf;

/// What the program was asked to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Command {
    /// Run the server.
    Serve,
    /// Print the admin token in force, or make a new one first.
    Token {
        /// Make a new one.
        rotate: bool,
    },
    /// List who is locked out.
    Lockouts,
    /// Let one client try again.
    ClearLockout(Client),
    /// Deploy this app, by name or identifier, from an archive on standard input.
    Deploy(String),
    /// Deploy the sample that the program holds.
    DeploySample,
    /// Run a command in an app's place.
    Run {
        /// The app's name or identifier.
        app: String,
        /// An argument list.
        command: Vec<String>,
    },
    /// Move in what an earlier platform has in a directory.
    Import {
        /// The directory.
        dir: String,
        /// Do it.
        yes: bool,
    },
    /// Print the newest rows of the audit log, and whether its chain is whole.
    Audit {
        /// A head that was kept elsewhere.
        head: Option<String>,
    },
    /// Begin a new chain of the audit log.
    BeginAuditAnew,
    /// Judge every point of the checklist.
    Check {
        /// For a script.
        json: bool,
    },
    /// Take another encryption key.
    Rekey {
        /// Where it is; else one is made.
        key_file: Option<PathBuf>,
    },
    /// Give up the values that no key opens any more.
    MarkLost {
        /// For good; else only say which.
        yes: bool,
    },
    /// Make a backup.
    Backup {
        /// Where; `-` for standard output, and among the others by default.
        file: Option<PathBuf>,
        /// With what is in the `/data` of apps.
        app_data: bool,
    },
    /// Put a backup in the place of what is there.
    Restore {
        /// The backup.
        file: PathBuf,
        /// The file with the key that opens it, where that is not the key in force.
        key_file: Option<PathBuf>,
    },
    /// Print the settings in force.
    Config,
    /// Install the server on this machine.
    Install {
        /// Only say what would be done.
        dry_run: bool,
    },
    /// Put another program in the place of the installed one.
    Update(Update),
    /// What an update has the old program do: copy the database.
    UpdateKeep,
    /// What it has the old program do when it failed: go back to that copy when a newer program
    /// has changed the schema.
    UpdateBack,
    /// What it has the new program do: put units and firewall in place.
    UpdateUnits,
    /// What it has the new program do first: prove that it can go on with a copy of the database,
    /// in this directory.
    Prove(OsString),
    /// Remove what was installed.
    Uninstall {
        /// The data too.
        purge: bool,
        /// Do not ask first.
        yes: bool,
    },
    /// Print the version.
    Version,
    /// Print the help text.
    Help,
    /// Print what the help text says of one command, and an example.
    HelpOf(&'static str),
    /// Print a line that has bash complete the commands.
    Completions,
    /// Print this page of the manual.
    Page(&'static str),
}

/// The text of `server help`.
pub const HELP: &str = "\
Better-PaaS turns this machine into a private platform for web apps.

Usage: server [COMMAND]

Commands:
  (none)                   run the server
  token                    print the admin token in force
  token --rotate           make a new admin token; every session ends at once
  run APP -- COMMAND ...   run a command in an app's place, at this terminal
  deploy APP -             deploy a tar archive from standard input
  deploy --sample          deploy a small site that the program brings along
  backup [FILE]            make a backup while everything runs; '-': standard output
  backup --no-app-data     without what is in the /data of apps
  restore FILE             put a backup in the place of what is there, which is kept
  restore FILE --key-file F  with the key that opens it
  lockouts                 list who is locked out after wrong tokens
  lockouts clear CLIENT    let one client try again
  import DIR               say what of an earlier platform's data would be moved in
  import DIR --yes         move it in
  audit                    print the newest acts, and whether their chain is whole
  audit --head HASH        likewise, and whether that head is in it
  audit --begin-anew       begin a new chain after one that was tampered with
  check                    judge every point of the checklist, and say what mends it
  check --json             likewise, for a script
  rekey                    make a new encryption key and encrypt everything with it
  rekey --key-file FILE    likewise, with the key in a file
  rekey --mark-lost        with the key lost: say what no longer opens; --yes: give it up
  config                   print the settings in force, and where each comes from
  install                  install the server on this machine, or bring it up to date
  install --dry-run        say what that would do
  update FILE|URL [--sha256 HEX] [--downgrade]
                           put a newer program in its place, and back if it does not serve
  prove DIR                what an update has it do first: open a copy of the database, answer
  uninstall                stop the server and all apps, remove all but the data
  uninstall --purge        the data too, after a question; --yes: without one
  completions              print a line with which bash completes all of these
  version                  print the version
  help                     print this text
  help TOPIC               print a page of the manual; 'help index' lists them

Environment:
  LISTEN_ADDR              address to listen on            [:8080, all interfaces]
  DATA_DIR                 directory for all data          [data]
  ADMIN_TOKEN              pins the admin token            [made on first run]
  TRUST_PROXY              true, or ranges of proxies      [unset: none]
  DASHBOARD_ORIGIN         another origin of the dashboard [unset]
  ROUTER                   on or off: host names for apps  [on]
  BASE_DOMAIN              apps answer at NAME.BASE_DOMAIN [localhost]
  HTTP_PORT, HTTPS_PORT    where the router listens        [80 or 8081, 443 or 8443]
  ROUTER_BIND              the one address it listens on   [all]
  DASHBOARD_DOMAIN         the dashboard, over HTTPS       [unset]
  ACME_EMAIL               for the certificate authority   [unset]
  PRIVATE_TLS              true: an authority of our own   [false]
  BACKUP_INTERVAL_HOURS    between two backups; 0: none    [24]
  BACKUP_KEEP              how many are kept               [7]
  BACKUP_COMMAND           what takes each elsewhere       [unset]
  BETTER_PAAS_SECRET_KEY   encryption key, 32 bytes in hex or base64
                                                           [made on first run]
";

/// Each command for people, and how it is used.
const EXAMPLES: [(&str, &str); 14] = [
    ("token", "server token --rotate"),
    ("run", "server run shop -- python manage.py migrate"),
    ("deploy", "tar -C dist -c . | server deploy shop -"),
    ("backup", "ssh root@vps better-paas backup - > today.tgz"),
    ("restore", "server restore today.tgz --key-file secret.key"),
    ("lockouts", "server lockouts clear 203.0.113.7"),
    ("import", "server import /root/old --yes"),
    ("audit", "server audit"),
    ("check", "sudo better-paas check || echo 'something is to be mended'"),
    ("rekey", "server rekey"),
    ("config", "server config"),
    ("install", "sudo ./server install --dry-run"),
    ("update", "sudo better-paas update ./server"),
    ("uninstall", "sudo better-paas uninstall --purge"),
];

/// The lines of [`HELP`] on one command, and an example.
pub fn help_of(command: &str) -> String {
    let mut is_its = false;
    let lines = HELP.lines().take_while(|line| *line != "Environment:").filter(|line| {
        // What goes on below a command is indented further.
        if line.starts_with("  ") && !line.starts_with("   ") {
            is_its = line.split_whitespace().next() == Some(command);
        }
        is_its && !line.is_empty()
    });
    let lines: Vec<&str> = lines.collect();
    let example = EXAMPLES.iter().find(|(name, _)| *name == command).map_or("", |(_, line)| line);
    format!("{}\n\nFor example:\n  {example}", lines.join("\n"))
}

/// A line for bash, which completes the commands behind either name of the program.
pub fn completions() -> String {
    let names = EXAMPLES.map(|(name, _)| name).join(" ");
    format!("complete -o bashdefault -o default -W '{names} version help' better-paas server")
}

/// Reads the words after the program's name.
///
/// # Errors
/// For words that no command takes, the sentence that says what to write instead.
pub fn parse(words: impl IntoIterator<Item = OsString>) -> Result<Command, String> {
    read(words).map_err(|why| format!("{why}; 'server help' lists the commands"))
}

fn read(words: impl IntoIterator<Item = OsString>) -> Result<Command, String> {
    use lexopt::Arg::{Long, Short, Value};
    let wrong = |error: lexopt::Error| error.to_string();
    let mut parser = lexopt::Parser::from_args(words);
    let mut positional: Vec<String> = Vec::new();
    while let Some(arg) = parser.next().map_err(wrong)? {
        match arg {
            Short('h') | Long("help") => {
                let first = positional.first().map(String::as_str);
                let named = EXAMPLES.iter().find(|(name, _)| Some(*name) == first);
                return Ok(named.map_or(Command::Help, |(name, _)| Command::HelpOf(name)));
            }
            Short('V') | Long("version") => return Ok(Command::Version),
            Value(word) if positional.is_empty() && word == "run" => {
                return run(parser.raw_args().map_err(wrong)?);
            }
            Long(flag) if !positional.is_empty() => positional.push(format!("--{flag}")),
            Value(word) => positional.push(word.to_string_lossy().into_owned()),
            Short(_) | Long(_) => return Err(wrong(arg.unexpected())),
        }
    }
    let words: Vec<&str> = positional.iter().map(String::as_str).collect();
    command(&words)
}

fn command(words: &[&str]) -> Result<Command, String> {
    let is_one = |file: &[&str]| file.len() < 2 && !file.iter().any(|f| f.starts_with("--"));
    match words {
        [] => Ok(Command::Serve),
        ["token"] => Ok(Command::Token { rotate: false }),
        ["token", "--rotate"] => Ok(Command::Token { rotate: true }),
        ["deploy", "--sample"] => Ok(Command::DeploySample),
        ["deploy", app, "-"] => Ok(Command::Deploy((*app).to_owned())),
        ["deploy", ..] => Err("'deploy' wants an app and '-': deploy APP -".to_owned()),
        ["lockouts", words @ ..] => lockouts(words),
        ["import", dir] if *dir != "--yes" => {
            Ok(Command::Import { dir: (*dir).to_owned(), yes: false })
        }
        ["import", dir, "--yes"] => Ok(Command::Import { dir: (*dir).to_owned(), yes: true }),
        ["import", ..] => Err("'import' wants the directory to move in from".to_owned()),
        ["audit"] => Ok(Command::Audit { head: None }),
        ["audit", "--head", head] => Ok(Command::Audit { head: Some((*head).to_owned()) }),
        ["audit", "--begin-anew"] => Ok(Command::BeginAuditAnew),
        ["check", json @ ..] if matches!(json, [] | ["--json"]) => {
            Ok(Command::Check { json: !json.is_empty() })
        }
        ["rekey"] => Ok(Command::Rekey { key_file: None }),
        ["rekey", "--key-file", file] => Ok(Command::Rekey { key_file: Some(file.into()) }),
        ["rekey", "--mark-lost"] => Ok(Command::MarkLost { yes: false }),
        ["rekey", "--mark-lost", "--yes"] => Ok(Command::MarkLost { yes: true }),
        ["backup", "--no-app-data", file @ ..] | ["backup", file @ .., "--no-app-data"]
            if is_one(file) =>
        {
            Ok(Command::Backup { file: file.first().map(Into::into), app_data: false })
        }
        ["backup", file @ ..] if is_one(file) => {
            Ok(Command::Backup { file: file.first().map(Into::into), app_data: true })
        }
        ["restore", file] if !file.starts_with("--") => {
            Ok(Command::Restore { file: file.into(), key_file: None })
        }
        ["restore", file, "--key-file", key] | ["restore", "--key-file", key, file] => {
            Ok(Command::Restore { file: file.into(), key_file: Some(key.into()) })
        }
        ["restore"] => Err("'restore' wants the file of a backup".to_owned()),
        ["config"] => Ok(Command::Config),
        ["install"] => Ok(Command::Install { dry_run: false }),
        ["install", "--dry-run"] => Ok(Command::Install { dry_run: true }),
        ["update", source, options @ ..] => update(source, options).map(Command::Update),
        ["update-keep"] => Ok(Command::UpdateKeep),
        ["update-back"] => Ok(Command::UpdateBack),
        ["update-units"] => Ok(Command::UpdateUnits),
        ["prove", copy] => Ok(Command::Prove(copy.into())),
        ["uninstall"] => Ok(Command::Uninstall { purge: false, yes: false }),
        ["uninstall", "--purge"] => Ok(Command::Uninstall { purge: true, yes: false }),
        ["uninstall", "--purge", "--yes"] => Ok(Command::Uninstall { purge: true, yes: true }),
        ["version"] => Ok(Command::Version),
        ["help"] => Ok(Command::Help),
        ["completions"] => Ok(Command::Completions),
        ["help", topic] => manual::page(topic).map(Command::Page).ok_or_else(|| {
            let pages = manual::PAGES.map(|(name, _)| name).join(", ");
            format!("no page '{}'; there are {pages}", topic.escape_debug())
        }),
        [
            "token" | "backup" | "restore" | "audit" | "check" | "rekey" | "config" | "install"
            | "uninstall" | "version" | "help",
            extra @ ..,
        ] => Err(format!("unexpected word '{}'", extra.join(" ").escape_debug())),
        [unknown, ..] => Err(format!("unknown command '{}'", unknown.escape_debug())),
    }
}

/// What follows `lockouts`.
fn lockouts(words: &[&str]) -> Result<Command, String> {
    match words {
        [] => Ok(Command::Lockouts),
        ["clear", client] => Client::parse(client)
            .map(Command::ClearLockout)
            .map_err(|e| format!("the client to clear {e}")),
        ["clear"] => {
            Err("'lockouts clear' wants the client that 'server lockouts' shows".to_owned())
        }
        _ => Err(format!("unexpected word '{}'", words.join(" ").escape_debug())),
    }
}

/// What follows `update`.
fn update(source: &str, options: &[&str]) -> Result<Update, String> {
    // It becomes a word among others of a program that root runs.
    if source.starts_with('-') || source.contains(char::is_whitespace) {
        let why = "'update' wants a path or an address without spaces, and no dash before it";
        return Err(why.to_owned());
    }
    let (sha256, may_be_older) = match options {
        [] => (None, false),
        ["--downgrade"] => (None, true),
        ["--sha256", sum] => (Some((*sum).to_owned()), false),
        ["--sha256", sum, "--downgrade"] | ["--downgrade", "--sha256", sum] => {
            (Some((*sum).to_owned()), true)
        }
        _ => {
            let usage = "'update' takes: update FILE|URL [--sha256 HEX] [--downgrade]";
            return Err(usage.to_owned());
        }
    };
    Ok(Update { source: source.to_owned(), sha256, may_be_older })
}

/// The words after `run`. Those of the command are its own, whatever they look like.
fn run(words: impl Iterator<Item = OsString>) -> Result<Command, String> {
    let words: Result<Vec<_>, _> = words.map(OsString::into_string).collect();
    match words.as_deref() {
        Ok([help]) if help == "--help" => Ok(Command::HelpOf("run")),
        Ok([app, mark, command @ ..]) if mark == "--" && !command.is_empty() => {
            Ok(Command::Run { app: app.clone(), command: command.to_vec() })
        }
        Ok(_) => Err("'run' wants an app and a command: run APP -- COMMAND".to_owned()),
        Err(_) => Err("the command is not UTF-8".to_owned()),
    }
}
