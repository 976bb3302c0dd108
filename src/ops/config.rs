//! `server config`: the settings in force and where each comes from, secrets masked.

use crate::config::{SETTINGS, Settings, doubts};
use crate::model::AnyError;

/// Settings whose value nobody else is to see.
const SECRET: [&str; 2] = ["ADMIN_TOKEN", "BETTER_PAAS_SECRET_KEY"];

/// A line for each setting, and one for each that is most likely misspelt.
///
/// # Errors
/// As the settings' file, or the first value that is not what it should be.
pub fn run() -> Result<String, AnyError> {
    let settings = Settings::of_this_program()?;
    let config = settings.config()?;
    let line = |(name, default): (&str, &str)| {
        let found = settings.found(name).filter(|(value, _)| !value.is_empty());
        let (value, source) = found.unwrap_or_else(|| (default.into(), "default"));
        let is_hidden = source != "default" && SECRET.contains(&name);
        let shown = if is_hidden { "(hidden)".into() } else { value.to_string_lossy() };
        format!("{name:<23} {shown:<28} {source}")
    };
    let mut lines: Vec<String> = SETTINGS.map(line).into();
    lines.extend(doubts(settings.names(), &config.routing));
    Ok(lines.join("\n"))
}
