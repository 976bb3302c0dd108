//! The thin binary: parse, dispatch, print the one error, exit code.

use better_paas::backup::app_data;
use better_paas::cli::{self, Command};
use better_paas::disk::{removal, shared_files};
use better_paas::{inside, ops, serve};
use rustix::process::{Resource, Rlimit, setrlimit};
use std::io::{ErrorKind, Write as _, stderr, stdout};
use std::path::Path;
use std::process::ExitCode;

/// The exit code when a command was not run to its end; its own are mostly smaller.
const NOT_RUN: u8 = 125;

fn main() -> ExitCode {
    // Whatever is made from here on is the owner's alone (P25).
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    keep_memory_out_of_files();
    let words = || std::env::args_os().skip(1);
    let commands_of_ours = inside::run_if_asked(words())
        .or_else(|| removal::run_if_asked(words()))
        .or_else(|| shared_files::run_if_asked(words()))
        .or_else(|| app_data::run_if_asked(words()));
    if let Some(code) = commands_of_ours {
        return code;
    }
    let command = match cli::parse(words()) {
        Ok(command) => command,
        Err(usage) => {
            complain(&usage);
            return ExitCode::from(2);
        }
    };
    match run(command) {
        Ok(code) => code,
        Err(error) => {
            complain(&error);
            ExitCode::FAILURE
        }
    }
}

/// No core file is made of this process, whose memory holds the token and the key (P7), nor
/// of any that it starts; what collects core files for the system goes by this limit too.
fn keep_memory_out_of_files() {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    // Less is always granted (setrlimit(2)).
    let _ = setrlimit(Resource::Core, none);
}

fn run(command: Command) -> Result<ExitCode, Box<dyn std::error::Error + Send + Sync>> {
    match command {
        Command::Serve => serve::run()?,
        Command::Token { rotate: false } => print(ops::token::run(false)?.expose())?,
        Command::Token { rotate: true } => {
            let token = ops::token::run(true)?;
            print(token.expose()).map_err(|error| {
                format!("a new token is in force, but {error}; 'server token' prints it")
            })?;
        }
        Command::Lockouts => print(&ops::lockouts::list()?)?,
        Command::ClearLockout(client) => print(&ops::lockouts::clear(client)?)?,
        Command::Deploy(app) => return Ok(ExitCode::from(ops::deploy::run(app)?)),
        Command::DeploySample => return Ok(ExitCode::from(ops::deploy::sample()?)),
        Command::Run { app, command } => {
            let code = ops::run::run(app, command).unwrap_or_else(|error| {
                complain(&error);
                NOT_RUN
            });
            return Ok(ExitCode::from(code));
        }
        Command::Import { dir, yes } => print(&ops::import::run(Path::new(&dir), yes)?)?,
        Command::Audit { head } => ops::audit::run(head.as_deref(), &mut tell)?,
        Command::BeginAuditAnew => print(&ops::audit::begin_anew()?)?,
        Command::Check { json } => {
            let (text, is_well) = ops::check::run(json)?;
            print(&text)?;
            return Ok(if is_well { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        Command::Rekey { key_file } => print(&ops::rekey::run(key_file)?)?,
        Command::MarkLost { yes } => print(&ops::rekey::mark_lost(yes)?)?,
        Command::Backup { file, app_data } => {
            if let Some(place) = ops::backup::run(file, app_data)? {
                print(&place)?;
            }
        }
        Command::Restore { file, key_file } => print(&ops::restore::run(&file, key_file)?)?,
        Command::Config => print(&ops::config::run()?)?,
        Command::Install { dry_run } => install(dry_run)?,
        Command::Update(update) => ops::update::run(&update, &mut tell)?,
        Command::UpdateKeep => ops::update::keep()?,
        Command::UpdateBack => ops::update::go_back()?,
        Command::UpdateUnits => ops::update::units(&mut tell)?,
        Command::Prove(copy) => print(&serve::prove(Path::new(&copy))?)?,
        Command::Uninstall { purge, yes } => ops::install::uninstall(purge, yes, &mut tell)?,
        Command::Version => print(&format!("server {}", env!("CARGO_PKG_VERSION")))?,
        Command::Page(text) => print(text.trim_end())?,
        Command::HelpOf(command) => print(&cli::help_of(command))?,
        Command::Completions => print(&cli::completions())?,
        Command::Help => print(cli::HELP.trim_end())?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Ends with what the owner goes on with.
fn install(is_dry_run: bool) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let Some((config, token)) = ops::install::install(is_dry_run, &mut tell)? else {
        return Ok(());
    };
    print(&format!("The dashboard: {}", serve::dashboard(config.listen.address, &config.routing)))?;
    print(&format!("The token:     {}", token.expose()))?;
    Ok(())
}

/// What is done, as it is done; it is done whether anybody reads it or not.
fn tell(line: &str) {
    let _ = print(line);
}

/// Prints a line; a reader that has gone away (`server help | head`) is no error.
fn print(text: &str) -> Result<(), String> {
    let mut out = stdout();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(format!("standard output cannot be written: {error}"))
        }
        _ => Ok(()),
    }
}

/// When standard error cannot be written, the exit code has to do.
fn complain(error: &dyn std::fmt::Display) {
    let _ = writeln!(stderr(), "server: {error}");
}
