//! What the machine needs: room, time, updates, and fences between apps.

use super::{Check, DAY, Facts, Finding, Level, ours};

/// How old a program may get: bundled libraries get security fixes that often.
const BUILD_AGE: i64 = 180 * DAY;

/// How long a system may not have asked for updates.
const ASKED_AGE: i64 = 14 * DAY;

/// Seconds by which two clocks may differ: certificates and webhooks allow for more.
const CLOCK_SECONDS: i64 = 120;

/// The swap space that a small machine is given.
const ADD_SWAP: &str = "`sudo sh -c 'fallocate -l 1G /swapfile && chmod 600 /swapfile && mkswap \
                        /swapfile && swapon /swapfile && echo /swapfile none swap sw 0 0 >>/etc/fstab'`";

const SET_CLOCK: &str =
    "`sudo apt-get -y install systemd-timesyncd && sudo timedatectl set-ntp true`";

const GET_UPDATES: &str = "`sudo apt-get update && sudo apt-get -y upgrade`";

pub(super) const CHECKS: &[Check] =
    &[router, disk, memory, clock, browser, reboot, updates, build, ports];

fn router(facts: &Facts) -> Option<Finding> {
    let why = facts.router.as_ref()?;
    let other = || format!("{} says what to set", ours(facts, "help domains-and-https"));
    let mend = command_in(why).unwrap_or_else(other);
    Some(Finding::warn("router", why, mend))
}

/// The command that a sentence names.
fn command_in(sentence: &str) -> Option<String> {
    sentence.split('`').nth(1).map(|command| format!("`{command}`"))
}

fn disk(facts: &Facts) -> Option<Finding> {
    let disk = facts.disk.as_ref()?;
    let mend = format!(
        "`sudo du -xah {} | sort -h | tail -n 30` shows what takes it; remove what is not needed",
        disk.mount
    );
    if let Some(why) = &disk.too_little {
        return Some(Finding::fail("disk", why, mend));
    }
    let (free, all) = (disk.free >> 20, disk.all >> 20);
    let sentence = format!("{free} MiB of {all} MiB of the disk are free");
    Some(if disk.is_short {
        Finding::warn("disk", format!("{sentence}; soon no deploy goes on"), mend)
    } else {
        Finding::pass("disk", sentence)
    })
}

fn memory(facts: &Facts) -> Option<Finding> {
    let memory = facts.memory.as_ref()?;
    let (available, total) = (memory.available >> 20, memory.total >> 20);
    let sentence = format!("{available} MiB of {total} MiB of memory are available");
    let is_short = |free, all| free < all / 10;
    Some(if !is_short(memory.available, memory.total) {
        Finding::pass("memory", sentence)
    } else if memory.swap == 0 {
        Finding::warn("memory", format!("{sentence}, and there is no swap space"), ADD_SWAP)
    } else if is_short(memory.swap_free, memory.swap) {
        let why = format!("{sentence}, and the swap space is full too");
        Finding::fail("memory", why, "stop an app, or give one a lower memory limit")
    } else {
        Finding::pass("memory", format!("{sentence}, with swap space"))
    })
}

fn clock(facts: &Facts) -> Option<Finding> {
    Some(if facts.clock_is_set? {
        Finding::pass("clock", "the clock is kept right over the network")
    } else {
        let why = "nothing keeps this machine's clock right; with a wrong one certificates and \
                   webhooks are refused";
        Finding::warn("clock", why, SET_CLOCK)
    })
}

fn browser(facts: &Facts) -> Option<Finding> {
    let ahead = facts.ahead_of_browser.filter(|ahead| ahead.abs() > CLOCK_SECONDS)?;
    let (by, side) = (ahead.abs(), if ahead > 0 { "ahead of" } else { "behind" });
    let why = format!("this machine's clock is {by} seconds {side} that of your browser");
    Some(Finding::fail("clock-browser", why, SET_CLOCK))
}

fn reboot(facts: &Facts) -> Option<Finding> {
    let why = "updates that were installed wait for a restart of the machine; apps start again by \
               themselves";
    facts.reboot_required.then(|| Finding::warn("reboot", why, "`sudo reboot`"))
}

fn updates(facts: &Facts) -> Option<Finding> {
    let updates = facts.updates?;
    let asked = updates.asked_at.filter(|at| facts.now - at < ASKED_AGE);
    Some(match (updates.security, asked) {
        (0, Some(_)) => Finding::pass("updates", "no security update of the system is pending"),
        (0, None) => Finding::warn(
            "updates",
            "the system has not asked for security updates for two weeks",
            format!("{GET_UPDATES}, and `sudo apt-get -y install unattended-upgrades`"),
        ),
        (n, _) => Finding::warn(
            "updates",
            format!("{n} security updates of the system are pending"),
            GET_UPDATES,
        ),
    })
}

fn build(facts: &Facts) -> Option<Finding> {
    let days = (facts.now - facts.built_at?) / DAY;
    let sentence = format!("this version, {}, is {days} days old", env!("CARGO_PKG_VERSION"));
    Some(if days > BUILD_AGE / DAY {
        Finding::warn(
            "build",
            sentence,
            format!("get the newest, then {}", ours(facts, "update ./server")),
        )
    } else {
        Finding::pass("build", sentence)
    })
}

fn ports(facts: &Facts) -> Option<Finding> {
    let ports = facts.open_ports.as_ref()?;
    let Some(port) = ports.first() else {
        return Some(Finding::pass("ports", "nothing else listens for the Internet"));
    };
    let list = ports.iter().map(u16::to_string).collect::<Vec<_>>().join(", ");
    let why = format!(
        "besides the dashboard, the router and SSH something listens for the whole network: \
         port {list}"
    );
    let mend = format!(
        "`sudo ss -ltnp 'sport = :{port}'` names the program: stop it, or have it listen at 127.0.0.1"
    );
    Some(Finding::warn("ports", why, mend))
}

/// What keeps apps apart, each by itself.
pub(super) fn fences(facts: &Facts) -> impl Iterator<Item = Finding> {
    facts.fences.iter().map(|(name, problem)| {
        let Some(why) = problem else {
            let well = match *name {
                "identity" => "each app is a user of its own",
                "firewall" => "apps cannot connect to the ports of this machine",
                "port-fence" => "apps cannot listen at ports that are not theirs",
                _ => "apps cannot reach each other's abstract sockets",
            };
            return Finding::pass(name, well);
        };
        let said = command_in(why);
        // What install sets up was there, and is gone.
        let level = match facts.is_installed && said.is_some() {
            true => Level::Fail,
            false => Level::Warn,
        };
        let mend = match said {
            Some(_) if facts.is_installed && *name != "identity" => {
                "`sudo better-paas install && sudo systemctl restart better-paas`".to_owned()
            }
            Some(command) => command,
            None => {
                "a newer kernel has it: that of the next release of the distribution, or of its \
                 backports"
                    .to_owned()
            }
        };
        Finding::new(level, name, why.clone(), mend)
    })
}
