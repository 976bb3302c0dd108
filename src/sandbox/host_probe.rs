//! Whether apps can run on this host, found by making a sandbox.

use super::bwrap::{Purpose, Sandbox};
use super::etc_files::EtcFiles;
use super::host::Host;
use crate::disk::app_users::AppUsers;
use crate::disk::subuid;
use crate::inside;
use crate::model::AnyError;
use crate::proc::Cancel;
use std::fs;
use std::path::Path;
use std::time::Duration;

/// How long the first sandbox may take; it takes some hundredths of a second, more on a machine
/// that has just started and is busy.
const TRYING_OUT: Duration = Duration::from_secs(20);

/// Looks at the host and makes one sandbox for a try. `apps` is the directory with all apps.
///
/// # Errors
/// The sentence that says what is missing and how to mend it.
pub fn probe(etc: EtcFiles, apps: &Path, stop: &Cancel) -> Result<Host, String> {
    let mut host = Host::look(etc, stop)?;
    let setting = |path: &str| fs::read_to_string(path).unwrap_or_default();
    loop {
        let Err(why) = try_out(&host, stop) else { return Ok(host) };
        let AppUsers::Subordinate(range) = host.users else {
            return Err(why_not(host.users, &why.to_string(), &setting));
        };
        // Better together in sandboxes than not at all, as long as it is said.
        host.shared_because = Some(subuid::why_shared(&why.to_string(), range, apps)?);
        host.users = AppUsers::Shared;
    }
}

/// Makes one sandbox with everything that a real one has.
fn try_out(host: &Host, stop: &Cancel) -> Result<(), AnyError> {
    let sandbox = Sandbox::new(host, Purpose::Build, 0).env("TRIED", "yes\n");
    let exec = sandbox.prepare(&["/bin/sh", "-c", "printf %s \"$TRIED\""]);
    let exec = exec.deadline(TRYING_OUT);
    let output = exec.run_until(stop)?;
    let is_well = output.exit.is_success() && output.stdout == b"yes\n";
    if is_well { Ok(()) } else { Err(subuid::why_failed(&output).into()) }
}

/// The sentence for a sandbox that could not be made.
fn why_not(users: AppUsers, why: &str, setting: &dyn Fn(&str) -> String) -> String {
    if users != AppUsers::Root {
        let is = |path: &str, value: &str| setting(path).trim_end() == value;
        if is("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1") {
            return "AppArmor keeps bubblewrap from making sandboxes on this Ubuntu; allow it, \
                    and nothing else, by writing \"abi <abi/4.0>, include <tunables/global> \
                    profile bwrap /usr/bin/bwrap flags=(unconfined) { userns, }\" into \
                    /etc/apparmor.d/bwrap and running `sudo systemctl reload apparmor`"
                .to_owned();
        }
        if is("/proc/sys/kernel/unprivileged_userns_clone", "0") {
            return "this kernel lets only root make user namespaces, which sandboxes need; \
                    run `sudo sysctl -w kernel.unprivileged_userns_clone=1` and put the \
                    setting into /etc/sysctl.d"
                .to_owned();
        }
        if is("/proc/sys/user/max_user_namespaces", "0") {
            return "this machine allows no user namespaces, which sandboxes need; run \
                    `sudo sysctl -w user.max_user_namespaces=10000` and put the setting \
                    into /etc/sysctl.d"
                .to_owned();
        }
    }
    if why.contains(inside::PLACE) && why.contains("Permission denied") {
        return format!(
            "no program can be run from the data directory ({why}): its file system is most \
             likely mounted with noexec; take that away or move the directory"
        );
    }
    format!(
        "bubblewrap could not make a sandbox on this machine ({why}); inside a container it \
         needs one that allows namespaces, elsewhere `bwrap --unshare-all --ro-bind / / true` \
         shows the reason"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Host {
        /// The machine on which the tests run.
        pub fn here(etc: &Path) -> Self {
            // Beside the directory of the program with the tests.
            let tests = std::env::current_exe().unwrap();
            let server = tests.parent().unwrap().with_file_name("server");
            let files = EtcFiles::make(etc, &server).unwrap();
            probe(files, etc, &Cancel::new().unwrap()).unwrap()
        }

        /// Runs a line of shell in a directory as an app: an ordinary user may not write to what
        /// an app owns.
        pub fn as_app(&self, slot: u16, dir: &Path, script: &str) {
            let sandbox = Sandbox::new(self, Purpose::Build, slot).bind(dir, "/app").dir("/app");
            let output = sandbox.prepare(&["/bin/sh", "-c", script]).run().unwrap();
            assert!(output.exit.is_success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
    }

    #[test]
    fn each_reason_for_no_sandboxes_has_its_own_sentence() {
        let when = |path: &'static str, value: &'static str| {
            let setting = |p: &str| if p == path { value.into() } else { String::new() };
            why_not(AppUsers::Shared, "why", &setting)
        };
        let ubuntu = when("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1");
        assert!(ubuntu.contains("/etc/apparmor.d/bwrap"), "{ubuntu}");
        let debian = when("/proc/sys/kernel/unprivileged_userns_clone", "0");
        assert!(debian.contains("unprivileged_userns_clone=1"), "{debian}");
        let none = when("/proc/sys/user/max_user_namespaces", "0");
        assert!(none.contains("max_user_namespaces"), "{none}");
        assert!(when("", "").contains("(why)"));
    }
}
