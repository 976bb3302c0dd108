//! The checklist as a running server judges it, and the commands that it prints.

use super::wait::until;
use super::{Http, Setup};
use serde_json::Value;
use std::process::Command;
use std::time::Duration;

/// What takes effect at once is seen with the next look; a crash loop takes some seconds.
const LIMIT: Duration = Duration::from_secs(90);

/// The finding of a name, now.
pub fn finding(owner: &mut Http, id: &str) -> Option<Value> {
    let answer = owner.get("/api/security/check").expect(200).json();
    answer["findings"].as_array().expect("a list").iter().find(|one| one["id"] == id).cloned()
}

/// Waits until something is wrong, and gives its finding.
#[track_caller]
pub fn found(owner: &mut Http, id: &str, level: &str) -> Value {
    let mut last = None;
    until(&format!("{id} is found"), LIMIT, || {
        last = finding(owner, id);
        last.as_ref().is_some_and(|found| found["level"] == level)
    });
    last.expect("a finding")
}

/// Waits until it is no more.
#[track_caller]
pub fn mended(owner: &mut Http, id: &str) {
    until(&format!("{id} is mended"), LIMIT, || {
        finding(owner, id).is_none_or(|found| found["level"] == "pass")
    });
}

/// The command that a finding prints.
pub fn command(found: &Value) -> String {
    let mend = found["mend"].as_str().expect("a sentence");
    mend.split('`').nth(1).unwrap_or_else(|| panic!("no command: {found}")).to_owned()
}

/// Runs that command as the server's user, who needs no `sudo` here; what it prints.
#[track_caller]
pub fn mend(found: &Value) -> String {
    let command = command(found).replace("sudo ", "");
    let output = Command::new("sh").args(["-ec", &command]).output().expect("a shell");
    assert!(output.status.success(), "{command}: {output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// `server check`, and how it ends.
pub fn check(setup: &Setup, words: &[&str]) -> (String, Option<i32>) {
    let finished = setup.run(&[&["check"], words].concat());
    (finished.stdout, finished.code)
}
