//! Tells the owner of findings, at the one address that takes them (P28): once when one comes,
//! once when it goes.
//!
//! The address is as good as a password, so it is in no argument list and no log. Who answers
//! there is a stranger: what he says is not read, and he is asked from where no app and no port
//! of this machine can be reached.

use crate::checks::{Finding, Level};
use crate::model::{AnyError, Invalid, Secret, UnixMillis, failed, unix_millis};
use crate::proc::Cancel;
use crate::sandbox::bwrap::{Purpose, Sandbox};
use crate::sandbox::host::Host;
use crate::sync::lock;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::sync::Mutex;
use std::time::{Duration, Instant};
use zeroize::Zeroizing;

/// Bytes of an address at most: the longest in use have some hundreds.
const LONGEST: usize = 2000;

/// Findings that one message tells of; receivers take a few KiB.
const TOLD: usize = 20;

/// Characters that are shown of an error.
const SHOWN: usize = 200;

/// The number of the app's user who has no app.
const NOBODYS: u16 = 0;

/// Seconds that the receiver may take.
const PATIENCE: &str = "15";

/// The pause after a sending that failed, and the longest; it doubles.
const FIRST_PAUSE: Duration = Duration::from_secs(30);
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);

/// Reads an address.
///
/// # Errors
/// [`Invalid`] when it is none that findings can be sent to.
pub fn address(text: &str) -> Result<Secret, Invalid> {
    let url = text.trim();
    let host = url.strip_prefix("https://").map(|rest| rest.split(['/', '?', '#', ':']).next());
    let is_plain =
        |b: u8| b.is_ascii_graphic() && !matches!(b, b'"' | b'\\' | b'<' | b'>' | b'{' | b'}');
    if url.len() > LONGEST || !url.bytes().all(is_plain) {
        return Err(Invalid("holds characters that no address has, or is too long"));
    }
    match host {
        Some(Some(host)) if !host.is_empty() && !host.contains('@') => {
            Ok(Secret::new(url.to_owned()))
        }
        _ => Err(Invalid("is no address to send to: write one that begins with https://")),
    }
}

/// How a sending went.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Sent {
    /// When.
    pub sent_at: UnixMillis,
    /// The status that the receiver answered with.
    pub status: Option<u16>,
    /// Why it was not taken, if it was not.
    pub error: Option<String>,
}

/// What was told, by finding: how bad it was, and the sentence.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told(BTreeMap<String, (Level, String)>);

impl Told {
    /// All of it.
    pub fn findings(&self) -> impl Iterator<Item = Finding> {
        self.0.iter().map(|(id, (level, sentence))| Finding {
            id: id.clone(),
            level: *level,
            sentence: sentence.clone(),
            mend: String::new(),
            app_id: None,
        })
    }

    /// What has come and gone since then, as one message; none when nothing has. Beside it what
    /// is told once that has been sent.
    #[must_use]
    pub fn news(&self, server: &str, lasting: &[Finding], head: &str) -> Option<(String, Self)> {
        let bad = || lasting.iter().filter(|finding| finding.level != Level::Pass);
        let is_new = |finding: &&Finding| {
            self.0.get(&finding.id).is_none_or(|(level, _)| *level < finding.level)
        };
        let mut lines = Vec::new();
        for finding in bad().filter(is_new) {
            let mark = if finding.level == Level::Fail { "✗" } else { "!" };
            lines.push(format!("{mark} {}\n   → {}", finding.sentence, finding.mend));
        }
        for (id, (_, sentence)) in &self.0 {
            if bad().all(|finding| finding.id != *id) {
                lines.push(format!("✓ no longer: {sentence}"));
            }
        }
        if lines.is_empty() {
            return None;
        }
        let more = lines.len().saturating_sub(TOLD);
        lines.truncate(TOLD);
        let mut text = format!("Better-PaaS on {server}\n{}", lines.join("\n"));
        if more > 0 {
            let _ = write!(text, "\nand {more} more");
        }
        // Elsewhere it proves what the audit log was (P31).
        let _ = write!(text, "\naudit log: {head}");
        let told =
            |finding: &Finding| (finding.id.clone(), (finding.level, finding.sentence.clone()));
        Some((text, Self(bad().map(told).collect())))
    }
}

/// Sends, and knows how it went and when it is tried again.
pub struct Notices {
    stop: Cancel,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    last: Option<Sent>,
    /// When it failed, and how long nothing is tried after that.
    pause: Option<(Instant, Duration)>,
    /// Whether the address was saved of late, and has been told nothing.
    is_new: bool,
}

impl Notices {
    /// Nothing was sent yet. `stop` ends a sending under way.
    #[must_use]
    pub fn new(stop: Cancel) -> Self {
        Self { stop, state: Mutex::default() }
    }

    /// How the last sending went.
    #[must_use]
    pub fn last(&self) -> Option<Sent> {
        lock(&self.state).last.clone()
    }

    /// Another address knows nothing of what the one before was told, and how that went.
    pub fn begin_anew(&self) {
        *lock(&self.state) = State { is_new: true, ..State::default() };
    }

    /// Whether that was done since this was asked last.
    pub fn take_new(&self) -> bool {
        std::mem::take(&mut lock(&self.state).is_new)
    }

    /// Whether the pause after a failure is over.
    #[must_use]
    pub fn is_due(&self) -> bool {
        lock(&self.state).pause.is_none_or(|(since, pause)| since.elapsed() >= pause)
    }

    /// Sends a text.
    pub fn send(&self, host: &Host, url: &Secret, text: &str) -> Sent {
        let (status, error) = match self.post(host, url, text) {
            Ok(status @ 200..=299) => (Some(status), None),
            Ok(status @ 300..=399) => {
                let why = "it leads elsewhere, where nothing is sent; save the address it leads to";
                (Some(status), Some(why.to_owned()))
            }
            Ok(status) => (Some(status), Some(format!("it was not taken: status {status}"))),
            Err(error) => (None, Some(error.to_string().replace(url.expose(), "the address"))),
        };
        let sent = Sent { sent_at: unix_millis(), status, error };
        let mut state = lock(&self.state);
        let before = state.pause.map(|(_, pause)| (2 * pause).min(LONGEST_PAUSE));
        let pause = sent.error.as_ref().map(|_| before.unwrap_or(FIRST_PAUSE));
        state.pause = pause.map(|pause| (Instant::now(), pause));
        state.last = Some(sent.clone());
        sent
    }

    /// The status of the answer. All that curl gets to know comes by its standard input.
    fn post(&self, host: &Host, url: &Secret, text: &str) -> Result<u16, AnyError> {
        let quoted = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"");
        let body = json!({ "text": text }).to_string();
        let config =
            Zeroizing::new(format!("url = \"{}\"\ndata = \"{}\"\n", url.expose(), quoted(&body)));
        let (input, mut ours) = io::pipe()?;
        // Far less than a pipe holds.
        ours.write_all(config.as_bytes())?;
        drop(ours);
        let words = [
            "curl",
            "-q",
            "-sS",
            "--proto",
            "=https",
            "--max-redirs",
            "0",
            "--max-time",
            PATIENCE,
            "-H",
            "Content-Type: application/json",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code}",
            "-K",
            "-",
        ];
        let sandbox = Sandbox::new(host, Purpose::Fetch, NOBODYS)
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("LC_ALL", "C.UTF-8");
        let exec = sandbox.prepare(&words).stdin_file(input.into());
        let output = exec.run_until(&self.stop).map_err(failed("curl could not be started"))?;
        let said = String::from_utf8_lossy(&output.stderr);
        match String::from_utf8_lossy(&output.stdout).trim().parse() {
            Ok(status) if output.exit.is_success() => Ok(status),
            _ => match said.lines().next() {
                Some(line) => Err(line.chars().take(SHOWN).collect::<String>().into()),
                None => Err(format!("curl: {}", output.exit).into()),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(id: &str, level: Level) -> Finding {
        let (sentence, mend) = (format!("{id} is {level:?}"), "do".to_owned());
        Finding { id: id.to_owned(), level, sentence, mend, app_id: None }
    }

    #[test]
    fn p28_each_is_told_once_when_it_comes_or_gets_worse_and_once_when_it_goes() {
        use Level::{Fail, Pass, Warn};
        let mut told = Told::default();
        let mut tell = |lasting: &[Finding]| {
            let (text, now) = told.news("vps", lasting, "00ff")?;
            told = serde_json::from_str(&json!(now).to_string()).unwrap();
            let lines = text.lines().filter(|line| !line.starts_with("   "));
            Some(lines.map(str::to_owned).collect::<Vec<_>>().join("|"))
        };
        assert_eq!(tell(&[finding("disk", Pass)]), None);
        let text = tell(&[finding("disk", Warn), finding("key", Warn)]).unwrap();
        assert_eq!(text, "Better-PaaS on vps|! disk is Warn|! key is Warn|audit log: 00ff");
        assert_eq!(tell(&[finding("disk", Warn), finding("key", Warn)]), None);
        let text = tell(&[finding("disk", Fail), finding("key", Pass)]).unwrap();
        assert!(text.contains("|✗ disk is Fail|✓ no longer: key is Warn|"), "{text}");
        assert_eq!(tell(&[finding("disk", Warn)]), None, "it got better");
        let many: Vec<_> = (0..30).map(|n| finding(&n.to_string(), Warn)).collect();
        let text = tell(&many).unwrap();
        assert!(text.contains("|and 11 more|") && text.matches('!').count() == TOLD, "{text}");
    }

    #[test]
    fn p28_an_address_is_one_of_https_and_nothing_else() {
        for good in ["https://a.example", " https://a.example:8443/x?y=z#q ", "https://[::1]/"] {
            assert!(address(good).is_ok(), "{good}");
        }
        let long = format!("https://a.example/{}", "x".repeat(LONGEST));
        for bad in [
            "",
            "http://a.example",
            "https://",
            "https:///x",
            "file:///etc/passwd",
            "HTTPS//a",
            "https://a b",
            "https://user@a.example/",
            "https://a.example/\"",
            "https://a.example/\\",
            "https://a.example/\n-o x",
            "https://a.{b,c}",
            &long,
        ] {
            assert!(address(bad).is_err(), "{bad}");
        }
    }
}
