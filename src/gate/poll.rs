//! What the event loop waits for, as the kernel tells it (epoll(7)).

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

pub(super) use epoll::{Event, EventFlags};

/// Events that are taken from the kernel at once.
const EVENTS: usize = 128;

/// Each change once: those who were told remember it until they have done all there is to do.
const CHANGES: EventFlags = READ.union(EventFlags::ET);

/// The next thing to read and nothing after it, until it is asked for again: a connection
/// whose answer is awaited causes no event, whatever its client does meanwhile.
const ONCE: EventFlags = READ.union(EventFlags::ONESHOT);

/// Whatever can be read, or has ended.
const READ: EventFlags = EventFlags::IN.union(EventFlags::RDHUP);

/// The kernel's list of what is watched.
pub(super) struct Poll(OwnedFd);

impl Poll {
    pub fn new() -> io::Result<Self> {
        Ok(Self(epoll::create(epoll::CreateFlags::CLOEXEC)?))
    }

    /// Tells when there is more to read from now on, under this token, until the last
    /// descriptor of the file is closed.
    pub fn watch(&self, what: impl AsFd, token: u64) -> io::Result<()> {
        Ok(epoll::add(&self.0, what, epoll::EventData::new_u64(token), CHANGES)?)
    }

    /// Tells, for something that is watched, also when there is room to write, or not
    /// any more.
    pub fn watch_for_room(&self, what: impl AsFd, token: u64, room: bool) -> io::Result<()> {
        let flags = if room { CHANGES | EventFlags::OUT } else { CHANGES };
        Ok(epoll::modify(&self.0, what, epoll::EventData::new_u64(token), flags)?)
    }

    /// Tells once when there is something to read.
    pub fn add(&self, what: impl AsFd, token: u64) -> io::Result<()> {
        Ok(epoll::add(&self.0, what, epoll::EventData::new_u64(token), ONCE)?)
    }

    /// Tells once more.
    pub fn again(&self, what: impl AsFd, token: u64) -> io::Result<()> {
        Ok(epoll::modify(&self.0, what, epoll::EventData::new_u64(token), ONCE)?)
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
