//! What the tests hold in their hands: the server as a process, clients for it, and the programs around it.

pub mod apps;
pub mod browser;
pub mod caddy;
pub mod checks;
pub mod front;
pub mod git;
pub mod http;
pub mod netns;
pub mod obedient;
pub mod process;
pub mod program;
pub mod raw;
pub mod routed;
pub mod sealed;
pub mod server;
pub mod site;
pub mod small_disk;
pub mod spec;
pub mod wait;
pub mod webhook;
pub mod ws;

pub use git::GitServer;
pub use http::{Answer, Http};
pub use netns::Netns;
pub use raw::RawConn;
pub use server::{Finished, Server, Setup};
pub use wait::{until, until_some};
pub use ws::Ws;

/// A token that is long enough to pin, and that no other test uses.
pub fn a_token() -> String {
    format!("bpaas_{}", hex(&random::<32>()))
}

/// Random bytes from the system.
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("random bytes");
    bytes
}

/// Lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}
