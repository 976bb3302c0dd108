//! What the supervisor and deploys work with, and how the supervisor is told of changes.

use super::hold::Hold;
use super::launched::Launched;
use super::ports::Ports;
use super::status_board::StatusBoard;
use crate::disk::layout::Layout;
use crate::journal::Journal;
use crate::model::AppId;
use crate::router::Router;
use crate::sandbox::host_watch::HostWatch;
use crate::store::Store;
use crate::sync::{EventFd, lock};
use std::collections::VecDeque;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex};

/// What the supervisor and deploys work with.
pub struct Tools {
    /// What its owner wants of each app, and what runs.
    pub store: Arc<Store>,
    /// The logs of apps and deploys.
    pub journal: Arc<Journal>,
    /// Their files.
    pub layout: Layout,
    /// What leads requests to apps.
    pub router: Router,
    /// Where the dashboard answers.
    pub own_port: u16,
    /// What is known of the host.
    pub host: HostWatch,
    /// What gives out their ports.
    pub ports: Ports,
    /// Where the supervisor says what it does.
    pub board: StatusBoard,
    /// Where it is told what to do.
    pub mailbox: Mailbox,
}

impl Tools {
    /// The ports that are the server's own.
    pub fn own_ports(&self) -> Vec<u16> {
        [self.own_port].into_iter().chain(self.router.ports()).collect()
    }
}

/// What the supervisor is told.
pub enum Message {
    /// A new release is live, in those of its processes that were started already; the one
    /// before it shall end.
    TakeOver(AppId, Vec<Launched>),
    /// The app cannot run twice, and another process of it is about to be started: the one that
    /// runs shall end, and none be started meanwhile. Requests are held at the port, if there is
    /// one; the sender is dropped once no process is left.
    GiveWay(AppId, Option<u16>, Sender<()>),
    /// That other process has not become the live one. What is held waits for the next.
    Resume(AppId, Option<Hold>),
    /// What the owner wants may have changed.
    Look(AppId),
    /// The owner wants more or fewer workers of the app.
    Scale(AppId),
    /// The app is being removed.
    Forget(AppId),
    /// The server stops; apps stay.
    Shutdown,
}

/// What the supervisor was told and has not heard yet.
pub struct Mailbox {
    messages: Mutex<VecDeque<Message>>,
    /// Signalled with each of them.
    pub wake_up: EventFd,
}

impl Mailbox {
    /// An empty one.
    ///
    /// # Errors
    /// When the process has no descriptor left.
    pub fn new() -> std::io::Result<Self> {
        Ok(Self { messages: Mutex::default(), wake_up: EventFd::new()? })
    }

    /// Sends a message. After the supervisor has gone it is lost, as is the server.
    pub fn send(&self, message: Message) {
        lock(&self.messages).push_back(message);
        self.wake_up.signal();
    }

    /// The next message, if there is one.
    pub fn take(&self) -> Option<Message> {
        lock(&self.messages).pop_front()
    }
}
