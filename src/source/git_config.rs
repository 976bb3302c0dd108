//! Git's configuration: ours alone, and the token for one host.

use crate::model::Secret;
use data_encoding::BASE64;

/// Configuration for every call. Nothing else is read.
pub(super) const CONFIG: [(&str, &str); 14] = [
    ("core.hooksPath", "/dev/null"),
    ("core.askPass", ""),
    ("credential.helper", ""),
    // Git repeats extraHeader after a redirect, to whatever host it leads.
    ("http.followRedirects", "false"),
    ("http.lowSpeedLimit", "1000"),
    ("http.lowSpeedTime", "30"),
    ("protocol.ext.allow", "never"),
    ("protocol.file.allow", "never"),
    ("submodule.recurse", "false"),
    ("gc.auto", "0"),
    ("maintenance.auto", "false"),
    // Always packs, so that counting packs is counting fetches.
    ("fetch.unpackLimit", "1"),
    // Larger files go through in pieces instead of as a whole in memory.
    ("core.bigFileThreshold", "16m"),
    // Each has some such files in memory, and there may be as many as the machine has cores.
    ("pack.threads", "2"),
];

/// The header that carries a token. One with a colon is a user name and a password.
pub(super) fn authorization(token: &Secret) -> Secret {
    let user = if token.expose().contains(':') { "" } else { "x-access-token:" };
    let pair = Secret::new(format!("{user}{}", token.expose()));
    let coded = Secret::new(BASE64.encode(pair.expose().as_bytes()));
    Secret::new(format!("Authorization: Basic {}", coded.expose()))
}
