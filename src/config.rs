//! The environment as a checked [`Config`], or one sentence that says what to write instead.

mod doubts;
mod routing;
mod settings;

pub use doubts::doubts;
pub use routing::check_bind;
pub use settings::{FILE, LAST_UPDATE, PROGRAM, Settings, runs_installed};

use crate::model::{ADMIN_TOKEN_LENGTH, Backups, Cidr, Routing, Secret, Trust, is_host, number};
use std::collections::HashSet;
use std::ffi::OsString;
use std::net::{Ipv6Addr, SocketAddr};
use std::path::PathBuf;

/// Where it listens unless told otherwise (P21).
const DEFAULT_PORT: u16 = 8080;
/// Where the data is unless told otherwise (P25).
const DEFAULT_DATA_DIR: &str = "data";

/// All settings, and what holds where one is not set.
pub const SETTINGS: [(&str, &str); 17] = [
    ("LISTEN_ADDR", ":8080"),
    ("DATA_DIR", DEFAULT_DATA_DIR),
    ("ADMIN_TOKEN", "made on first run"),
    ("TRUST_PROXY", "nobody"),
    ("DASHBOARD_ORIGIN", "none"),
    ("ROUTER", "on"),
    ("BASE_DOMAIN", "localhost"),
    ("HTTP_PORT", "80, or 8081"),
    ("HTTPS_PORT", "443, or 8443"),
    ("ROUTER_BIND", "all addresses"),
    ("DASHBOARD_DOMAIN", "none"),
    ("ACME_EMAIL", "none"),
    ("PRIVATE_TLS", "false"),
    ("BACKUP_INTERVAL_HOURS", "24"),
    ("BACKUP_KEEP", "7"),
    ("BACKUP_COMMAND", "none"),
    ("BETTER_PAAS_SECRET_KEY", "made on first run"),
];

/// Those that mean nothing without a router, besides the dashboard's name, which is refused then.
const OF_THE_ROUTER: [&str; 6] =
    ["BASE_DOMAIN", "ROUTER_BIND", "HTTP_PORT", "HTTPS_PORT", "ACME_EMAIL", "PRIVATE_TLS"];

/// Different characters that a pinned token has at least. Of 32 random digits fewer come up
/// once in ten million tokens; of random letters never.
const DIFFERENT: usize = 6;

/// What the environment says, each value checked once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// `ADMIN_TOKEN`: pins the admin token (P4).
    pub admin_token: Option<Secret>,
    /// `LISTEN_ADDR`: where to listen (P21).
    pub listen: Listen,
    /// `DASHBOARD_ORIGIN`: a foreign origin that may open WebSockets (P23), as
    /// browsers write it: lower case, no default port, no path.
    pub dashboard_origin: Option<String>,
    /// `BETTER_PAAS_SECRET_KEY` as it was given (P15); the vault judges it.
    pub secret_key: Option<Secret>,
    /// `CREDENTIALS_DIRECTORY`, which systemd sets (P15).
    pub credentials_directory: Option<PathBuf>,
    /// `DATA_DIR`: where everything is kept (P25).
    pub data_dir: PathBuf,
    /// Where apps answer; and whose forwarding headers are believed (P11).
    pub routing: Routing,
    /// When backups are made, and what becomes of them (P29).
    pub backups: Backups,
}

/// Where to listen (P21).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listen {
    /// The address. Port 0 asks the system for a free one.
    pub address: SocketAddr,
    /// On all interfaces, IPv4 and IPv6.
    pub everywhere: bool,
}

impl Listen {
    fn everywhere(port: u16) -> Self {
        Self { address: (Ipv6Addr::UNSPECIFIED, port).into(), everywhere: true }
    }
}

impl Config {
    /// Reads the configuration through a function that looks up one variable. An
    /// empty value counts as none, except for `ADMIN_TOKEN`, where it would turn
    /// a pinned token off unnoticed.
    ///
    /// # Errors
    /// The sentence that names the first variable whose value is not what it should be, and says
    /// what to write.
    pub fn from_env(get: impl Fn(&str) -> Option<OsString>) -> Result<Self, String> {
        let filled = |name: &str| get(name).filter(|value| !value.is_empty());
        let variables = Variables(&filled);
        // In custody first, so that it is wiped from memory when it is refused.
        let admin_token = Variables(&get).read("ADMIN_TOKEN", |v| admin_token(Secret::new(v)))?;
        let listen = variables.read("LISTEN_ADDR", |v| listen(&v))?;
        let trust = variables.read("TRUST_PROXY", |v| trust_proxy(&v))?.unwrap_or_default();
        Ok(Self {
            admin_token,
            listen: listen.unwrap_or(Listen::everywhere(DEFAULT_PORT)),
            dashboard_origin: variables
                .read("DASHBOARD_ORIGIN", |v| origin(&v).ok_or(NO_ORIGIN))?,
            secret_key: variables.read("BETTER_PAAS_SECRET_KEY", |v| Ok(Secret::new(v)))?,
            credentials_directory: filled("CREDENTIALS_DIRECTORY").map(PathBuf::from),
            data_dir: filled("DATA_DIR").unwrap_or_else(|| DEFAULT_DATA_DIR.into()).into(),
            routing: routing::read(variables, trust)?,
            backups: backups(variables)?,
        })
    }
}

/// What looks up one variable.
#[derive(Clone, Copy)]
struct Variables<'a>(&'a dyn Fn(&str) -> Option<OsString>);

impl Variables<'_> {
    /// A variable that may be missing, read by a function that says what is wrong with it: in
    /// fixed words, for the value may be a secret in the wrong place.
    fn read<T>(
        self,
        name: &'static str,
        parse: impl FnOnce(String) -> Result<T, &'static str>,
    ) -> Result<Option<T>, String> {
        let Some(value) = (self.0)(name) else { return Ok(None) };
        let text = value.into_string().map_err(|_| "is not valid text (UTF-8)");
        text.and_then(parse).map(Some).map_err(|problem| format!("{name} {problem}"))
    }
}

fn backups(variables: Variables<'_>) -> Result<Backups, String> {
    let hours = |text: String| match text.parse() {
        Ok(hours @ 0..=8760) => Ok(hours),
        _ => Err("is no number of hours; write how many are between two backups, or 0 for none"),
    };
    let keep = |text: String| match text.parse() {
        Ok(keep @ 1..=1000) => Ok(keep),
        _ => Err("is not a number from 1 to 1000; write how many backups are to be kept"),
    };
    let command = |text: String| {
        let words = || text.split_whitespace().map(str::to_owned).collect();
        let words: Vec<String> =
            if text.starts_with('[') { serde_json::from_str(&text) } else { Ok(words()) }
                .map_err(|_| "begins like a JSON list of words and is none")?;
        let is_whole = words.first().is_some_and(|program| !program.is_empty());
        if is_whole && !words.iter().any(|word| word.contains('\0')) {
            Ok(words)
        } else {
            Err("names no program; write its words, for example: restic --repo /mnt/backups backup")
        }
    };
    Ok(Backups {
        interval_hours: variables.read("BACKUP_INTERVAL_HOURS", hours)?.unwrap_or(24),
        keep: variables.read("BACKUP_KEEP", keep)?.unwrap_or(7),
        command: variables.read("BACKUP_COMMAND", command)?.unwrap_or_default(),
    })
}

fn admin_token(token: Secret) -> Result<Secret, &'static str> {
    let text = token.expose();
    Err(if text.is_empty() {
        "is empty; unset it to use the token in data/admin_token.txt, or pin at least 32 \
         random characters, for example from: openssl rand -hex 32"
    } else if text.chars().any(char::is_whitespace) {
        "has whitespace inside, which gets lost on its way; write at least 32 random \
         characters without any, for example from: openssl rand -hex 32"
    } else if text.len() < *ADMIN_TOKEN_LENGTH.start() {
        "is too short to withstand guessing; write at least 32 random characters, for \
         example from: openssl rand -hex 32"
    } else if text.len() > *ADMIN_TOKEN_LENGTH.end() {
        "is too long; write at most 256 characters, for example from: openssl rand -hex 32"
    } else if !text.bytes().all(|b| b.is_ascii_graphic()) {
        "holds a character that cannot travel in a header; write letters, digits and ASCII \
         punctuation, for example from: openssl rand -hex 32"
    } else if text.bytes().collect::<HashSet<_>>().len() < DIFFERENT {
        "repeats a few characters and can be guessed however long it is; write at least 32 \
         random characters, for example from: openssl rand -hex 32"
    } else {
        return Ok(token);
    })
}

fn listen(text: &str) -> Result<Listen, &'static str> {
    if let Some(port) = text.strip_prefix(':').and_then(number) {
        return Ok(Listen::everywhere(port));
    }
    text.parse().map(|address| Listen { address, everywhere: false }).map_err(|_| {
        "is not an address to listen on; write :8080 for all interfaces, \
         127.0.0.1:8080 or [::1]:8080 for one"
    })
}

fn trust_proxy(text: &str) -> Result<Trust, &'static str> {
    match text.to_ascii_lowercase().as_str() {
        "true" => return Ok(Trust::private()),
        "false" => return Ok(Trust::default()),
        _ => {}
    }
    let ranges: Result<Vec<_>, _> = text.split(',').map(|r| Cidr::parse(r.trim())).collect();
    ranges.map(Trust).map_err(|_| {
        "is neither true nor a list of address ranges; write true to believe proxies \
         at loopback and private addresses, or name yours: 192.0.2.7,2001:db8::/64"
    })
}

const NO_ORIGIN: &str = "is not an origin; write scheme, host and, if it is not the usual one, \
     the port, with nothing after it: https://paas.example.com";

fn origin(text: &str) -> Option<String> {
    let lower = text.to_ascii_lowercase();
    let (scheme, rest) = lower.strip_suffix('/').unwrap_or(&lower).split_once("://")?;
    let usual = match scheme {
        "https" => 443,
        "http" => 80,
        _ => return None,
    };
    let (host, number) = match rest.rsplit_once(':') {
        Some((host, digits)) if !digits.ends_with(']') => {
            (host, number::<u16>(digits).filter(|p| *p > 0)?)
        }
        _ => (rest, usual),
    };
    let host = Some(host).filter(|host| is_host(host))?;
    // A browser writes an IPv6 address in its shortest form.
    let address = host.trim_matches(['[', ']']).parse::<Ipv6Addr>();
    let host = address.map_or(host.to_owned(), |address| format!("[{address}]"));
    // A browser leaves the usual port away, so the comparison must do without it too.
    let tail = if number == usual { String::new() } else { format!(":{number}") };
    Some(format!("{scheme}://{host}{tail}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::os::unix::ffi::OsStringExt;

    fn with(pairs: &[(&str, &str)]) -> Result<Config, String> {
        Config::from_env(|name| {
            pairs.iter().find(|(n, _)| *n == name).map(|(_, value)| OsString::from(value))
        })
    }

    fn one(name: &str, value: &str) -> Result<Config, String> {
        with(&[(name, value)])
    }

    #[test]
    fn an_empty_environment_gives_the_defaults() {
        let expected = Config {
            admin_token: None,
            listen: Listen::everywhere(8080),
            dashboard_origin: None,
            secret_key: None,
            credentials_directory: None,
            data_dir: "data".into(),
            routing: routing::read(Variables(&|_| None), Trust::default()).unwrap(),
            backups: Backups { interval_hours: 24, keep: 7, command: Vec::new() },
        };
        assert_eq!(with(&[]), Ok(expected.clone()));
        let names = [
            "LISTEN_ADDR",
            "TRUST_PROXY",
            "DASHBOARD_ORIGIN",
            "BETTER_PAAS_SECRET_KEY",
            "DATA_DIR",
        ];
        let empty: Vec<_> = names.iter().map(|n| (*n, "")).collect();
        assert_eq!(with(&empty), Ok(expected));
    }

    #[test]
    fn p4_a_weak_admin_token_is_refused_with_a_sentence_that_does_not_repeat_it() {
        let good = "0123456789abcdef0123456789abcdef";
        let config = one("ADMIN_TOKEN", good).unwrap();
        assert_eq!(config.admin_token.as_ref().unwrap().expose(), good);
        assert!(!format!("{config:?}").contains(good));
        assert!(one("ADMIN_TOKEN", &good.repeat(8)).is_ok());
        let (long, same) = ("x".repeat(257), "a".repeat(44));
        for (bad, word) in [
            ("", "empty"),
            ("hunter2", "too short"),
            (&good[1..], "too short"),
            ("0123456789abcdef 0123456789abcdef", "whitespace"),
            ("0123456789abcdef0123456789abcdef\n", "whitespace"),
            ("0123456789abcdef\u{a0}0123456789abcdef", "whitespace"),
            ("ä123456789abcdef0123456789abcdef", "header"),
            ("\u{7f}123456789abcdef0123456789abcdef", "header"),
            (&long, "too long"),
            (&same, "repeats"),
            ("01201201201201201201201201201201", "repeats"),
        ] {
            let error = one("ADMIN_TOKEN", bad).unwrap_err();
            assert!(error.starts_with("ADMIN_TOKEN ") && error.contains(word), "{error}");
            assert!(error.contains("openssl rand"), "{error}");
            assert!(bad.is_empty() || !error.contains(bad), "{error}");
        }
        let bytes =
            Config::from_env(|n| (n == "ADMIN_TOKEN").then(|| OsString::from_vec(vec![255; 40])));
        assert!(bytes.is_err());
    }

    #[test]
    fn p21_listen_addresses_are_read() {
        let listen = |t: &str| one("LISTEN_ADDR", t).map(|c| c.listen);
        assert_eq!(listen(":8080"), Ok(Listen::everywhere(8080)));
        assert_eq!(listen(":0"), Ok(Listen::everywhere(0)));
        for text in ["127.0.0.1:8080", "[::1]:8080", "0.0.0.0:1", "[::]:0"] {
            let address = text.parse().unwrap();
            assert_eq!(listen(text), Ok(Listen { address, everywhere: false }));
        }
        for bad in [
            "8080",
            "localhost:8080",
            ":",
            ":+80",
            ":65536",
            ":-1",
            ": 80",
            "127.0.0.1",
            "::1",
            "*:80",
        ] {
            let error = listen(bad).unwrap_err();
            assert!(error.starts_with("LISTEN_ADDR ") && error.contains(":8080"), "{error}");
        }
    }

    #[test]
    fn p11_trust_is_off_private_or_a_list() {
        let trust = |t: &str| one("TRUST_PROXY", t).map(|c| c.routing.trust);
        assert_eq!(trust("true"), Ok(Trust::private()));
        assert_eq!(trust("True"), Ok(Trust::private()));
        assert_eq!(trust("false"), Ok(Trust::default()));
        let ranges = vec![Cidr::parse("10.0.0.0/8").unwrap(), Cidr::parse("::1").unwrap()];
        assert_eq!(trust("10.0.0.0/8, ::1"), Ok(Trust(ranges)));
        for bad in ["yes", "1", "10.0.0.0/8,", ",", "10.0.0.0/33", "true,10.0.0.0/8", "caddy"] {
            let error = trust(bad).unwrap_err();
            assert!(error.starts_with("TRUST_PROXY "), "{error}");
        }
    }

    #[test]
    fn p23_an_origin_is_written_as_browsers_write_it() {
        let origin = |t: &str| one("DASHBOARD_ORIGIN", t).map(|c| c.dashboard_origin.unwrap());
        for (text, normal) in [
            ("https://paas.example.com", "https://paas.example.com"),
            ("HTTPS://Paas.Example.com:443/", "https://paas.example.com"),
            ("https://h:8443", "https://h:8443"),
            ("http://h:80", "http://h"),
            ("http://127.0.0.1:3000", "http://127.0.0.1:3000"),
            ("https://[0:0::1]:9", "https://[::1]:9"),
        ] {
            assert_eq!(origin(text).as_deref(), Ok(normal));
        }
        for bad in [
            "paas.example.com",
            "https://",
            "https:///",
            "https://h/x",
            "https://h//",
            "https://u@h",
            "https://h:",
            "https://h:0",
            "https://h:99999",
            "https://h:+1",
            "https://h?x",
            "https://a..b",
            "https://[::1",
            "https://[::1]x",
            "https://[x]",
            "https://a b",
            "https://bücher.example",
            "https://h, https://i",
            "null",
            "*",
        ] {
            assert!(origin(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn p29_backups_have_their_times_and_a_command_of_words() {
        let backups = |name: &str, text: &str| one(name, text).map(|c| c.backups);
        assert_eq!(backups("BACKUP_INTERVAL_HOURS", "0").unwrap().interval_hours, 0);
        assert_eq!(backups("BACKUP_KEEP", "30").unwrap().keep, 30);
        let command = |text: &str| backups("BACKUP_COMMAND", text).unwrap().command;
        assert_eq!(command("restic  backup -v"), ["restic", "backup", "-v"]);
        assert_eq!(command(r#"["cp", "a b"]"#), ["cp", "a b"]);
        for (name, bad) in [
            ("BACKUP_INTERVAL_HOURS", "daily"),
            ("BACKUP_INTERVAL_HOURS", "-1"),
            ("BACKUP_KEEP", "0"),
            ("BACKUP_COMMAND", "  "),
            ("BACKUP_COMMAND", "[]"),
            ("BACKUP_COMMAND", "[cp]"),
            ("BACKUP_COMMAND", r#"[""]"#),
        ] {
            let error = one(name, bad).unwrap_err();
            assert!(error.starts_with(name), "{error}");
        }
    }

    #[test]
    fn p15_the_secret_key_is_kept_as_it_is_and_not_shown() {
        let config = one("BETTER_PAAS_SECRET_KEY", "not judged here").unwrap();
        assert_eq!(config.secret_key.as_ref().unwrap().expose(), "not judged here");
        assert!(!format!("{config:?}").contains("judged"));
    }

    proptest! {
        #[test]
        fn no_value_makes_it_panic(name in 0usize..7, value in "\\PC{0,40}") {
            let names = ["ADMIN_TOKEN", "LISTEN_ADDR", "TRUST_PROXY", "DASHBOARD_ORIGIN",
                "BETTER_PAAS_SECRET_KEY", "CREDENTIALS_DIRECTORY", "DATA_DIR"];
            let _ = one(names[name], &value);
        }
    }
}
