//! Takes the server's own ports back from apps, where the kernel cannot keep them away from these
//! (before Linux 6.7, see [`crate::inside`]).
//!
//! Apps have the machine's network, so one of them could listen on the dashboard's port, or the
//! router's: in a moment in which its owner starts anew, or at another address of the machine.
//! It would be asked in the owner's place, the admin token included. So it is ended with all its
//! processes, and stays stopped until its owner has seen to it.

use super::instance::{KILLED, kill_all, sandboxes};
use super::tcp_sockets::{Socket, listeners, sockets_of};
use crate::journal::Journal;
use crate::model::{AppId, Wanted};
use crate::proc::table;
use crate::store::{Act, Store};
use std::collections::HashSet;
use std::path::Path;
use std::time::Instant;

/// Ends the apps that have a port of ours while the server runs, at whatever address. Answers
/// whether there were any.
pub fn take_back(store: &Store, journal: &Journal, apps: &Path, port: u16) -> bool {
    // Noted before they end: the supervisor would start them again.
    !end_holders(apps, port, &|app| keep_stopped(store, journal, app, port)).is_empty()
}

/// Keeps an app stopped that had taken a port of the server's, and says so in its log and ours.
pub fn keep_stopped(store: &Store, journal: &Journal, app: &AppId, port: u16) {
    let found = store.app(app).ok().flatten();
    let name = found.as_ref().map_or("", |app| app.name.as_str());
    log::error!("app {name} ({app}) had taken port {port}, which is this server's; it is stopped");
    let line = format!(
        "Stopped: it had taken port {port}, which is this server's. It must listen on the port \
         that PORT names alone."
    );
    journal.note_app(app, &line);
    let mut act = Act::new("system", format!("stop it, for it had taken port {port}")).about(found);
    if let Err(error) = store.set_wanted(app, Wanted::Stopped) {
        log::error!("app {app} is not noted as stopped: {error}");
        act.outcome = "database".to_owned();
    }
    store.audit(&act);
}

/// Ends the apps of a directory that have a port that is ours, and waits until they have gone.
/// Answers which they were; `before` hears of each before it ends.
#[must_use]
pub fn end_holders(apps: &Path, port: u16, before: &dyn Fn(&AppId)) -> Vec<AppId> {
    let own = sockets_of(std::process::id()).unwrap_or_default();
    // Those that listen: a connection may have any port that the kernel picked for it.
    let mut sockets = listeners();
    sockets.retain(|socket| socket.address.port() == port && !own.contains(&socket.inode));
    if sockets.is_empty() {
        return Vec::new();
    }
    let table = table::all();
    let seen: HashSet<u64> =
        table.iter().filter_map(|e| sockets_of(e.pid).ok()).flatten().collect();
    // Of one who ended in this moment the socket was listed, and nobody has it.
    let left = listeners();
    sockets.retain(|socket| left.iter().any(|one| one.inode == socket.inode));
    let mut guilty = Vec::new();
    let until = Instant::now() + KILLED;
    for (app, root) in sandboxes(apps, &table) {
        let tree = table::descendants_in(table.clone(), root.pid);
        // The first process of a sandbox is ours, and lets nobody look.
        if !tree.iter().any(|e| e.parent != root.pid && holds(e, &sockets, &seen)) {
            continue;
        }
        before(&app);
        kill_all(tree.iter().chain([&root]), until);
        guilty.push(app);
    }
    guilty
}

/// Whether a process has one of these sockets open. Of one that lets nobody look, as all of an
/// app's do that has a user of its own, its user decides, unless the socket was `seen` elsewhere.
fn holds(process: &table::Entry, sockets: &[Socket], seen: &HashSet<u64>) -> bool {
    match sockets_of(process.pid) {
        Ok(open) => sockets.iter().any(|socket| open.contains(&socket.inode)),
        Err(_) => {
            let user = table::effective_uid(process.pid);
            sockets.iter().any(|s| Some(s.uid) == user && !seen.contains(&s.inode))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn who_holds_a_port_is_known_by_what_is_open() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut sockets = listeners();
        sockets.retain(|socket| socket.address == listener.local_addr().unwrap());
        let me = table::entry(std::process::id()).unwrap();
        assert!(holds(&me, &sockets, &HashSet::new()));
        assert!(!holds(&me, &[], &HashSet::new()));
    }

    #[test]
    fn a_stranger_who_holds_a_port_is_left_alone() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let dir = tempfile::tempdir().unwrap();
        let nobody = |app: &AppId| panic!("{app} was found");
        let port = listener.local_addr().unwrap().port();
        assert_eq!(end_holders(dir.path(), port, &nobody), Vec::new());
    }
}
