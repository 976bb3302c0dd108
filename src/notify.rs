//! Tells the owner of findings, at the one address that takes them (P28): once when one comes,
//! once when it goes.
//!
//! The address is as good as a password, so it is in no argument list and no log. Who answers
//! there is a stranger: what he says is not read, and he is asked from where no app and no port
//! of this machine can be reached.

use crate::checks::{Finding, Level};
use crate::model::{AnyError, Invalid, Secret, UnixMillis, failed, unix_millis};
use crate::proc::{Cancel, Exit};
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

/// Bytes of findings in one message: Discord takes 2,000 characters, others more. It is also far
/// less than a pipe holds.
const LONGEST_TEXT: usize = 1800;

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

    /// What has come, or got worse, and gone since then, as one message if anything has; and what
    /// is told with it. What does not fit is told with the next.
    #[must_use]
    pub fn news(&self, server: &str, lasting: &[Finding], head: &str) -> (Option<String>, Self) {
        let mut text = format!("Better-PaaS on {server}");
        let (mut now, mut more) = (self.0.clone(), 0);
        let mut tell = |line: String| {
            let fits = text.len() + line.len() < LONGEST_TEXT;
            if fits {
                text.push_str(&line);
            }
            more += usize::from(!fits);
            fits
        };
        let bad = || lasting.iter().filter(|finding| finding.level != Level::Pass);
        for Finding { id, level, sentence, mend, .. } in bad() {
            let mark = if *level == Level::Fail { "✗" } else { "!" };
            let is_news = self.0.get(id).is_none_or(|(told, _)| told < level);
            if !is_news || tell(format!("\n{mark} {}\n   → {mend}", plain(sentence))) {
                now.insert(id.clone(), (*level, sentence.clone()));
            }
        }
        for (id, (_, sentence)) in &self.0 {
            let has_gone = bad().all(|finding| finding.id != *id);
            if has_gone && tell(format!("\n✓ no longer: {}", plain(sentence))) {
                now.remove(id);
            }
        }
        if text.lines().count() == 1 {
            return (None, Self(now));
        }
        if more > 0 {
            let _ = write!(text, "\nmore follows: {more}");
        }
        // Elsewhere it proves what the audit log was (P31).
        let _ = write!(text, "\naudit log: {head}");
        (Some(text), Self(now))
    }
}

/// A sentence in which nothing means more than it says where it is read: no mention, no link.
fn plain(sentence: &str) -> String {
    sentence.replace('<', "‹").replace('>', "›").replace('@', "@\u{200b}")
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
            Err(error) => (None, Some(error.to_string())),
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
        // What curl says names the receiver, which may be as good as a password.
        match (output.exit, String::from_utf8_lossy(&output.stdout).trim().parse()) {
            (Exit::Code(0), Ok(status)) => Ok(status),
            (Exit::Code(6), _) => Err("its name could not be resolved".into()),
            (Exit::Code(7), _) => Err("it could not be connected".into()),
            (Exit::Code(28) | Exit::TimedOut, _) => Err("it timed out".into()),
            (Exit::Code(35 | 51 | 60), _) => Err("its certificate is not valid".into()),
            (exit, _) => Err(format!("curl: {exit}").into()),
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
            let (text, now) = told.news("vps", lasting, "00ff");
            told = serde_json::from_str(&json!(now).to_string()).unwrap();
            let text = text?;
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
        assert!(tell(&[finding("disk", Fail)]).is_some(), "and worse again");
        // What does not fit follows, and nothing is longer than receivers take.
        let many: Vec<_> = (0..200).map(|n| finding(&format!("check {n}"), Warn)).collect();
        let mut all = String::new();
        while let Some(text) = tell(&many) {
            assert!(text.len() < 2000, "{text}");
            all += &text;
        }
        assert_eq!(all.matches('!').count(), 200);
    }

    #[test]
    fn p28_what_an_app_has_said_mentions_nobody() {
        let sentence = "it ended: <!channel> @everyone".to_owned();
        let bad = Finding { sentence, ..finding("loop", Level::Fail) };
        let text = Told::default().news("vps", &[bad], "").0.unwrap();
        assert!(!text.contains("<!") && !text.contains("@everyone"), "{text}");
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
