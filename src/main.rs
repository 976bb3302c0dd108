//! The thin binary: parse, dispatch, print the one error, exit code.

use better_paas::cli::{self, Command};
use better_paas::{ops, serve};
use std::process::ExitCode;

fn main() -> ExitCode {
    // Whatever is made from here on is the owner's alone (P25).
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let command = match cli::parse(std::env::args_os().skip(1)) {
        Ok(command) => command,
        Err(usage) => {
            eprintln!("server: {usage}");
            return ExitCode::from(2);
        }
    };
    match run(command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("server: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<(), Box<dyn std::error::Error>> {
    match command {
        Command::Serve => serve::run()?,
        Command::Token { rotate } => print(ops::token::run(rotate)?.expose()),
        Command::Lockouts => print(&ops::lockouts::list()?),
        Command::ClearLockout(client) => print(&ops::lockouts::clear(client)?),
        Command::Version => print(&format!("server {}", env!("CARGO_PKG_VERSION"))),
        Command::Help => print(cli::HELP.trim_end()),
    }
    Ok(())
}

/// Prints a line; a reader that has gone away (`server help | head`) is no error.
fn print(text: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stdout(), "{text}");
}
