//! Settings by name, with where each comes from: the environment, or the file of an installed
//! server, which systemd gives to the service as its environment.

use super::Config;
use std::env;
use std::ffi::OsString;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

/// Where an installed server has its settings.
pub const FILE: &str = "/etc/better-paas.conf";

/// The installed program.
pub const PROGRAM: &str = "/opt/better-paas/server";

/// How its last update went, as root has written it: an object of JSON.
pub const LAST_UPDATE: &str = "/opt/better-paas/update.json";

/// Where its service has its data.
const INSTALLED_DATA: &str = "/opt/better-paas/data";

/// Whether this process runs it.
#[must_use]
pub fn runs_installed() -> bool {
    env::current_exe().is_ok_and(|program| program == Path::new(PROGRAM))
}

/// The settings that a command goes by.
#[derive(Debug, Default)]
pub struct Settings {
    /// Of an installed server: name, value, and where it stands.
    installed: Vec<(String, String, &'static str)>,
}

impl Settings {
    /// Those of this program: the installed one has the file's, any other the environment alone.
    ///
    /// # Errors
    /// The sentence that says what is wrong with the file.
    pub fn of_this_program() -> Result<Self, String> {
        if runs_installed() { Self::of_the_service() } else { Ok(Self::default()) }
    }

    /// Those of the installed server.
    ///
    /// # Errors
    /// The sentence that says what is wrong with the file.
    pub fn of_the_service() -> Result<Self, String> {
        match fs::read_to_string(FILE) {
            Ok(text) => Self::parse(&text),
            Err(error) if error.kind() == ErrorKind::NotFound => Self::parse(""),
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                Err(format!("only root may read {FILE}; run this as root: sudo better-paas …"))
            }
            Err(error) => Err(format!("{FILE} could not be read: {error}")),
        }
    }

    /// A setting with its source. The environment wins, and then the last line, as for systemd.
    #[must_use]
    pub fn found(&self, name: &str) -> Option<(OsString, &'static str)> {
        let line = self.installed.iter().rfind(|(known, ..)| known == name);
        let line = line.map(|(_, value, source)| (value.into(), *source));
        env::var_os(name).map(|value| (value, "environment")).or(line)
    }

    /// All names that are set in the environment or the file.
    pub fn names(&self) -> impl Iterator<Item = OsString> {
        let environment = env::vars_os().map(|(name, _)| name);
        environment.chain(self.installed.iter().map(|(name, ..)| name.into()))
    }

    /// All of them, checked.
    ///
    /// # Errors
    /// As [`Config::from_env`].
    pub fn config(&self) -> Result<Config, String> {
        Config::from_env(|name| self.found(name).map(|(value, _)| value))
    }

    /// The lines of the file. Of what systemd understands (systemd.exec(5), `EnvironmentFile=`)
    /// only that which means the same to every reader: no quotes, no backslashes.
    fn parse(text: &str) -> Result<Self, String> {
        let default = ("DATA_DIR".to_owned(), INSTALLED_DATA.to_owned(), "default");
        let mut installed = vec![default];
        for (number, line) in (1..).zip(text.lines().map(str::trim)) {
            if line.is_empty() || line.starts_with(['#', ';']) {
                continue;
            }
            let pair = line.split_once('=').filter(|_| !line.contains(['"', '\'', '\\']));
            let (name, value) = pair.ok_or_else(|| {
                format!(
                    "line {number} of {FILE} is no setting; write NAME=value, without quotes and \
                     backslashes"
                )
            })?;
            installed.push((name.trim().to_owned(), value.trim().to_owned(), FILE));
        }
        Ok(Self { installed })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SETTINGS;
    use std::path::PathBuf;

    fn of(text: &str) -> Settings {
        Settings::parse(text).unwrap()
    }

    #[test]
    fn a_line_is_a_setting_and_the_last_one_counts() {
        let settings = of("# x\n\n;y=1\n BASE_DOMAIN = a.b \nROUTER=off\nROUTER=on\nACME_EMAIL=\n");
        assert_eq!(settings.found("ROUTER"), Some(("on".into(), FILE)));
        assert_eq!(settings.found("y"), None);
        assert_eq!(settings.config().unwrap().routing.base_domain, "a.b");
        assert!(settings.names().any(|name| name == "BASE_DOMAIN"));
        // Every test has this variable in its environment.
        let (path, source) = of("PATH=x").found("PATH").unwrap();
        assert!(path != "x" && source == "environment");
    }

    #[test]
    fn what_readers_could_understand_differently_is_refused_with_its_line_and_not_repeated() {
        for bad in ["ADMIN_TOKEN=\"secret\"", "A='secret'", "A=sec\\ret", "secret"] {
            let error = Settings::parse(&format!("ROUTER=on\n{bad}\n")).unwrap_err();
            assert!(error.starts_with("line 2 of /etc/better-paas.conf "), "{error}");
            assert!(!error.contains("sec"), "{error}");
        }
    }

    #[test]
    fn the_data_of_an_installed_server_is_where_its_service_has_it() {
        let data = |settings: Settings| settings.config().unwrap().data_dir;
        assert_eq!(data(of("")), PathBuf::from("/opt/better-paas/data"));
        assert_eq!(data(of("DATA_DIR=/srv/data")), PathBuf::from("/srv/data"));
        assert_eq!(data(Settings::default()), PathBuf::from("data"));
    }

    #[test]
    fn the_file_that_is_installed_names_every_setting_and_sets_none() {
        let text = include_str!("../../assets/install/better-paas.conf");
        assert_eq!(of(text).installed.len(), of("").installed.len());
        let named = text.lines().filter_map(|l| l.strip_prefix('#')?.split_once('='));
        let mut named: Vec<&str> =
            named.map(|(name, _)| name).filter(|n| !n.contains(' ')).collect();
        let mut all: Vec<&str> = SETTINGS.iter().map(|(name, _)| *name).collect();
        named.sort_unstable();
        all.sort_unstable();
        assert_eq!(named, all);
    }
}
