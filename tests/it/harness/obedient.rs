//! An app that does what it is asked to, from inside its sandbox.

use super::Http;
use super::apps::visitor;

/// An app on all addresses that does what a request says: connects, or runs a line of shell.
pub const OBEDIENT: [(&str, &str); 2] = [
    ("Procfile", "web: python3 -u main.py\n"),
    ("main.py", include_str!("../fixtures/obedient.py")),
];

/// Asks an app to do something.
#[track_caller]
pub fn ask(owner: &mut Http, app: &str, path: &str, text: &str) -> String {
    let answer = visitor(owner, app).request("POST", path, Some(text.as_bytes()));
    answer.expect(200).text()
}
