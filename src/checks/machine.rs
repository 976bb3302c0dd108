//! What the machine needs: room, time, updates, and fences between apps.

use super::{Check, DAY, Facts, Finding, Level, ours};

/// How old a program may get: bundled libraries get security fixes that often.
const BUILD_AGE: i64 = 180 * DAY;

/// How long a system may not have asked for updates.
const ASKED_AGE: i64 = 14 * DAY;

/// Ports that are told of: a machine with more has a purpose of its own.
const MOST_PORTS: usize = 10;

/// Seconds by which two clocks may differ: certificates and webhooks allow for more.
const CLOCK_SECONDS: i64 = 120;

/// The swap space that a small machine is given.
const ADD_SWAP: &str = "`sudo sh -c 'fallocate -l 1G /swapfile && chmod 600 /swapfile && mkswap \
                        /swapfile && swapon /swapfile && echo /swapfile none swap sw 0 0 >>/etc/fstab'`";

const SET_CLOCK: &str =
    "`sudo apt-get -y install systemd-timesyncd && sudo timedatectl set-ntp true`";

const GET_UPDATES: &str = "`sudo apt-get update && sudo apt-get -y --with-new-pkgs upgrade`";

pub(super) const CHECKS: &[Check] = &[router, disk, memory, clock, browser, reboot, updates, build];

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
    // In numbers that do not change with each look.
    let (percent, all) = (disk.free * 100 / disk.all.max(1), disk.all >> 30);
    let sentence = format!("{percent} % of the disk's {all} GiB are free");
    Some(if disk.is_short {
        Finding::warn("disk", format!("{sentence}; soon no deploy goes on"), mend)
    } else {
        Finding::pass("disk", sentence)
    })
}

fn memory(facts: &Facts) -> Option<Finding> {
    let memory = facts.memory.as_ref()?;
    let total = memory.total >> 20;
    let sentence = |much| format!("{much} a tenth of {total} MiB of memory is available");
    let is_short = |free, all| free < all / 10;
    Some(if !is_short(memory.available, memory.total) {
        Finding::pass("memory", sentence("more than"))
    } else if memory.swap == 0 {
        Finding::warn(
            "memory",
            format!("{}, and there is no swap space", sentence("less than")),
            ADD_SWAP,
        )
    } else if is_short(memory.swap_free, memory.swap) {
        let why = format!("{}, and the swap space is full too", sentence("less than"));
        Finding::fail("memory", why, "stop an app, or give one a lower memory limit")
    } else {
        Finding::pass("memory", format!("{}, with swap space", sentence("less than")))
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
    // One that is kept right is not the wrong one of the two.
    let ahead = facts.ahead_of_browser.filter(|_| facts.clock_is_set != Some(true))?;
    let (by, side) = (ahead.abs(), if ahead > 0 { "ahead of" } else { "behind" });
    let why = format!("this machine's clock is {by} seconds {side} that of your browser");
    (by > CLOCK_SECONDS).then(|| Finding::fail("clock-browser", why, SET_CLOCK))
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

/// Each port by itself: another one is another finding.
pub(super) fn ports(facts: &Facts) -> Vec<Finding> {
    let found = |port: &u16| {
        let why = format!(
            "besides the dashboard and the router something listens for the whole network, at port \
             {port}"
        );
        let mend = format!(
            "`sudo ss -ltnp 'sport = :{port}'` names the program: if it is not meant for everybody, \
             stop it, or have it listen at 127.0.0.1"
        );
        Finding::warn(&format!("port {port}"), why, mend)
    };
    match &facts.open_ports {
        None => Vec::new(),
        Some(ports) if ports.is_empty() => {
            vec![Finding::pass("ports", "nothing else listens for the Internet")]
        }
        Some(ports) => ports.iter().take(MOST_PORTS).map(found).collect(),
    }
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
            None if why.contains("kernel") => {
                "a newer kernel has it: that of the next release of the distribution, or of its \
                 backports"
                    .to_owned()
            }
            None => "mend what the other findings say first".to_owned(),
        };
        Finding::new(level, name, why.clone(), mend)
    })
}
