//! What this host has for running apps: programs, users, cgroups, memory.

use super::cgroup::Subtree;
use super::etc_files::EtcFiles;
use super::limits::Limits;
use crate::disk::app_users::AppUsers;
use crate::disk::subuid::Range;
use crate::proc::{self, Cancel, Exec};
use std::path::PathBuf;

/// Programs that must be there and are not part of every system, with the package that has them.
const NEEDED: [(&str, &str); 2] = [("bwrap", "bubblewrap"), ("git", "git")];

/// The host that we run on.
#[derive(Debug)]
pub struct Host {
    /// Whose processes an app's are.
    pub users: AppUsers,
    /// Why apps share the server's user, where they do, and how to mend it.
    pub shared_because: Option<String>,
    /// bubblewrap's version; older ones lack options.
    pub bwrap: (u32, u32),
    /// Bytes of memory.
    pub memory: u64,
    /// The cgroups for apps, or why there are none.
    pub cgroups: Result<Subtree, String>,
    /// The files that each sandbox needs.
    pub etc: EtcFiles,
}

impl Host {
    /// Looks for everything and tries nothing.
    ///
    /// # Errors
    /// The sentence that says what is missing and how to mend it.
    pub fn look(etc: EtcFiles, stop: &Cancel) -> Result<Self, String> {
        if let Some((program, package)) = NEEDED.iter().find(|(name, _)| proc::find(name).is_none())
        {
            return Err(format!(
                "{program} is not installed, and no app runs without it; run `apt install {package}`"
            ));
        }
        let (users, shared_because) = match Range::of_this_user() {
            _ if rustix::process::geteuid().is_root() => (AppUsers::Root, None),
            Ok(range) => (AppUsers::Subordinate(range), None),
            Err(why) => (AppUsers::Shared, Some(why)),
        };
        let info = rustix::system::sysinfo();
        Ok(Self {
            users,
            shared_because,
            bwrap: bwrap_version(stop),
            memory: info.totalram.saturating_mul(info.mem_unit.into()),
            cgroups: Subtree::of_this_service(),
            etc,
        })
    }

    /// The words before bubblewrap: what makes the user namespace in which an app's user
    /// is known, where there is one.
    pub fn user_namespace(&self, slot: u16) -> Vec<String> {
        match self.users {
            AppUsers::Subordinate(range) => range.around(slot),
            // bubblewrap does not start with capabilities that the server's children inherit,
            // from its unit's `AmbientCapabilities=`.
            AppUsers::Shared => {
                ["setpriv", "--ambient-caps=-all", "--inh-caps=-all", "--"].map(String::from).into()
            }
            AppUsers::Root => Vec::new(),
        }
    }

    /// Makes a cgroup with these limits; the file through which a program enters it. `None`
    /// where there are no cgroups for apps.
    pub fn make_cgroup(&self, limits: &Limits) -> Option<PathBuf> {
        let leaf = self.cgroups.as_ref().ok()?.make_leaf(limits);
        leaf.inspect_err(|e| log::warn!("an app's cgroup could not be made: {e}")).ok()
    }
}

/// `bubblewrap 0.8.0` → `(0, 8)`.
fn bwrap_version(stop: &Cancel) -> (u32, u32) {
    let output = Exec::new("bwrap").arg("--version").run_until(stop);
    let text = output.map(|o| String::from_utf8_lossy(&o.stdout).into_owned()).unwrap_or_default();
    parse_version(&text).unwrap_or((0, 0))
}

fn parse_version(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.split_ascii_whitespace().nth(1)?.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        assert_eq!(parse_version("bubblewrap 0.8.0\n"), Some((0, 8)));
        assert_eq!(parse_version("bubblewrap 0.11.0"), Some((0, 11)));
        assert_eq!(parse_version("nonsense"), None);
    }
}
