//! Networks of a test's own, so that the machine's firewall and addresses stay as they are. Needs root.

use super::server::run;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::fs::File;
use std::os::fd::AsFd;
use std::process::Command;

/// The server's machine and an outsider, joined by a cable.
pub struct Netns {
    pub machine: String,
    pub outsider: String,
}

/// The machine's end of the cable.
pub const MACHINE_V4: &str = "10.77.0.1";
pub const MACHINE_V6: &str = "fd77::1";
/// The outsider's end.
pub const OUTSIDER_V4: &str = "10.77.0.2";
pub const OUTSIDER_V6: &str = "fd77::2";
/// The outsider plays the cloud's metadata service too: at its well-known address and at one of the link.
pub const METADATA: &str = "169.254.169.254";
pub const LINK_LOCAL: &str = "fe80::beef";

impl Netns {
    pub fn new() -> Self {
        let id = super::hex(&super::random::<4>());
        let pair = Self { machine: format!("bpm-{id}"), outsider: format!("bpo-{id}") };
        for name in [&pair.machine, &pair.outsider] {
            ip(&format!("netns add {name}"));
            ip(&format!("-n {name} link set lo up"));
        }
        let (m, o) = (&pair.machine, &pair.outsider);
        ip(&format!("-n {m} link add cable type veth peer name cable netns {o}"));
        for (name, v4, v6) in [(m, MACHINE_V4, MACHINE_V6), (o, OUTSIDER_V4, OUTSIDER_V6)] {
            ip(&format!("-n {name} addr add {v4}/24 dev cable"));
            ip(&format!("-n {name} addr add {v6}/64 dev cable nodad"));
            ip(&format!("-n {name} link set cable up"));
        }
        ip(&format!("-n {o} addr add {METADATA}/32 dev cable"));
        ip(&format!("-n {o} addr add {LINK_LOCAL}/64 dev cable nodad"));
        ip(&format!("-n {m} route add {METADATA}/32 dev cable"));
        pair
    }

    /// Does something in a thread whose network, and that of the programs it starts, is this one.
    pub fn within<T: Send>(name: &str, work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                let file = File::open(format!("/run/netns/{name}")).expect("a namespace");
                move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
                    .expect("to be there");
                work()
            });
            match thread.join() {
                Ok(value) => value,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        for name in [&self.machine, &self.outsider] {
            let _gone = Command::new("ip").args(["netns", "delete", name]).status();
        }
    }
}

fn ip(words: &str) {
    run(Command::new("ip").args(words.split_whitespace()));
}
