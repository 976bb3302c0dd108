//! Takes the server's own ports back from apps.
//!
//! Apps have the machine's network, so one of them can listen on the dashboard's port, or the
//! router's, in a moment in which its owner starts anew. It would be asked in the owner's
//! place from then on, the admin token included. So it is ended with all its processes, and
//! stays stopped until its owner has seen to it.

use super::instance::sandboxes;
use super::port::{Listener, in_the_way_of, sockets_of};
use crate::journal::Journal;
use crate::model::{AppId, Wanted};
use crate::proc::{Running, table};
use crate::store::Store;
use rustix::process::geteuid;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long killed processes may take to go.
const KILLED: Duration = Duration::from_secs(5);

/// Takes ports back while the server runs.
pub struct Reclaimer {
    apps: PathBuf,
    store: Arc<Store>,
    journal: Arc<Journal>,
}

impl fmt::Debug for Reclaimer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reclaimer").field("apps", &self.apps).finish_non_exhaustive()
    }
}

impl Reclaimer {
    /// For the apps in this directory.
    #[must_use]
    pub const fn new(apps: PathBuf, store: Arc<Store>, journal: Arc<Journal>) -> Self {
        Self { apps, store, journal }
    }

    /// Ends the apps that keep us from listening at an address. Answers whether there were any.
    #[must_use]
    pub fn reclaim(&self, address: SocketAddr) -> bool {
        // Noted before they end: the supervisor would start them again.
        let note = |app: &AppId| keep_stopped(&self.store, &self.journal, app, address.port());
        !end_holders(&self.apps, address, &note).is_empty()
    }
}

/// Keeps an app stopped that had taken a port of the server's, and says so in its log and ours.
pub fn keep_stopped(store: &Store, journal: &Journal, app: &AppId, port: u16) {
    let name =
        store.app(app).ok().flatten().map_or_else(String::new, |a| a.name.as_str().to_owned());
    log::error!("app {name} ({app}) had taken port {port}, which is this server's; it is stopped");
    let line = format!(
        "Stopped: it had taken port {port}, which is this server's. It must listen on the port \
         that PORT names alone."
    );
    journal.note_app(app, &line);
    if let Err(error) = store.set_wanted(app, Wanted::Stopped) {
        log::error!("app {app} is not noted as stopped: {error}");
    }
}

/// Ends the apps of a directory that keep us from listening at an address, and waits until
/// they have gone. Answers which they were; `before` hears of each before it ends.
#[must_use]
pub fn end_holders(apps: &Path, address: SocketAddr, before: &dyn Fn(&AppId)) -> Vec<AppId> {
    let sockets = in_the_way_of(address);
    if sockets.is_empty() {
        return Vec::new();
    }
    let table = table::all();
    let trees: Vec<(AppId, Vec<table::Entry>)> = sandboxes(apps, &table)
        .into_iter()
        .map(|(app, root)| {
            let mut tree = table::descendants_in(table.clone(), root.pid);
            tree.push(root);
            (app, tree)
        })
        .collect();
    let those = |wanted: Grip| -> Vec<AppId> {
        let held = trees.iter().filter(|(_, tree)| grip(tree, &sockets) == wanted);
        held.map(|(app, _)| app.clone()).collect()
    };
    let mut guilty = those(Grip::Sure);
    if guilty.is_empty() && grip(&table, &sockets) != Grip::Sure {
        guilty = those(Grip::Hidden);
    }
    guilty.sort_unstable();
    guilty.dedup();
    guilty.iter().for_each(before);
    let processes: Vec<_> = trees
        .iter()
        .filter(|(app, _)| guilty.contains(app))
        .flat_map(|(_, tree)| tree)
        .filter_map(|entry| Running::adopt(entry.pid, entry.start_ticks))
        .collect();
    processes.iter().for_each(Running::kill);
    let until = Instant::now() + KILLED;
    for mut process in processes {
        process.wait(until.saturating_duration_since(Instant::now()));
    }
    guilty
}

/// Whether processes hold some of these sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Grip {
    No,
    /// They may: one of them has the same user, which is ours, and lets nobody look.
    Hidden,
    Sure,
}

/// Whether processes hold some of these sockets. A user that is one app's alone is proof: an
/// ordinary user's server may not look into its processes.
fn grip(processes: &[table::Entry], sockets: &[Listener]) -> Grip {
    let ours = geteuid().as_raw();
    let mut grip = Grip::No;
    for process in processes {
        let open = sockets_of(process.pid);
        if let Ok(open) = &open
            && sockets.iter().any(|socket| open.contains(&socket.inode))
        {
            return Grip::Sure;
        }
        let uid = table::effective_uid(process.pid);
        if sockets.iter().any(|socket| Some(socket.uid) == uid) {
            if uid != Some(ours) {
                return Grip::Sure;
            }
            if open.is_err() {
                grip = Grip::Hidden;
            }
        }
    }
    grip
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn who_holds_a_port_is_known_by_what_is_open() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let sockets = in_the_way_of(listener.local_addr().unwrap());
        let me = [table::entry(std::process::id()).unwrap()];
        assert_eq!(grip(&me, &sockets), Grip::Sure);
        let init = table::entry(1).unwrap();
        assert_ne!(grip(&[init], &sockets), Grip::Sure);
        drop(listener);
        let mut others = sockets;
        others[0].inode = 0;
        assert_eq!(grip(&me, &others), Grip::No, "the user alone proves nothing");
    }

    #[test]
    fn a_stranger_who_holds_a_port_is_left_alone() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let dir = tempfile::tempdir().unwrap();
        let address = listener.local_addr().unwrap();
        let nobody = |app: &AppId| panic!("{app} was found");
        assert_eq!(end_holders(dir.path(), address, &nobody), Vec::new());
    }
}
