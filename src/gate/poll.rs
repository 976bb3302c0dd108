//! What the event loop waits for, as the kernel tells it (epoll(7)).
//!
//! Edge-triggered: the kernel tells each change once, so that a connection whose
//! answer is awaited, and which is not read from meanwhile, causes no event again
//! and again. Who was told that something can be read remembers it.

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

pub(super) use epoll::{Event, EventFlags};

/// Events that are taken from the kernel at once.
const EVENTS: usize = 128;

/// Whatever can be read, or has ended.
const READ: EventFlags = EventFlags::IN.union(EventFlags::RDHUP).union(EventFlags::ET);

/// What a reader must know of an event: nothing more will come.
pub(super) const ENDED: EventFlags =
    EventFlags::RDHUP.union(EventFlags::HUP).union(EventFlags::ERR);

/// The kernel's list of what is watched.
pub(super) struct Poll(OwnedFd);

impl Poll {
    pub fn new() -> io::Result<Self> {
        Ok(Self(epoll::create(epoll::CreateFlags::CLOEXEC)?))
    }

    /// Tells from now on, under this token, when there is something to read. It ends
    /// with the last descriptor of the file.
    pub fn watch(&self, what: impl AsFd, token: u64) -> io::Result<()> {
        Ok(epoll::add(&self.0, what, epoll::EventData::new_u64(token), READ)?)
    }

    /// Tells, for something that is watched, also when there is room to write, or not
    /// any more.
    pub fn watch_for_room(&self, what: impl AsFd, token: u64, room: bool) -> io::Result<()> {
        let flags = if room { READ | EventFlags::OUT } else { READ };
        Ok(epoll::modify(&self.0, what, epoll::EventData::new_u64(token), flags)?)
    }

    /// Tells nothing more about it.
    pub fn forget(&self, what: impl AsFd) {
        // It can only fail when it was not watched.
        let _ = epoll::delete(&self.0, what);
    }

    /// Waits for events, until `until` at most, and puts them in place of those that
    /// were there.
    pub fn wait(&self, until: Option<Instant>, events: &mut Vec<Event>) {
        events.clear();
        events.reserve(EVENTS);
        let timeout = until.map(|until| {
            let rest = until.saturating_duration_since(Instant::now());
            Timespec::try_from(rest).unwrap_or(Timespec { tv_sec: 1, tv_nsec: 0 })
        });
        // An error, such as a signal's, leaves the list empty; then nothing happened.
        let _ = epoll::wait(&self.0, spare_capacity(events), timeout.as_ref());
    }
}
