//! Holds requests for an app that cannot run twice, between the end of one process and the start
//! of the next: the router leads them to a port of ours, and they go on once a process is there.
//!
//! So no request goes to a process that has not proved itself, and none to one that is ending,
//! even if both have the same port. What was held here passes through this server until its
//! connection ends; all that comes later does not.

use crate::proc::{Cancel, wait_any};
use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write as _};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::os::fd::AsFd as _;
use std::sync::{Arc, OnceLock};
use std::thread::{self, Builder};
use std::time::{Duration, Instant};

/// How long a request is held.
const PATIENCE: Duration = Duration::from_secs(60);

/// Requests that are held at once. Each of them that passes has two threads here.
const MOST: usize = 256;

/// Their stacks: they copy bytes, no more.
const STACK: usize = 64 << 10;

/// How long requests still come after the router was led elsewhere: those that had read its
/// table a moment before.
const LATE: Duration = Duration::from_secs(1);

/// The pause after a connection that could not be taken.
const PAUSE: Duration = Duration::from_millis(100);

/// What a request gets that was held in vain.
const SORRY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 10\r\nConnection: close\r\n\
    Content-Type: text/plain; charset=utf-8\r\nContent-Length: 25\r\n\r\nThis app is not running.\n";

/// How much of such a request is read, and for how long, so that its sender gets the answer
/// and no broken connection.
const REST: u64 = 64 << 10;
const REST_TIME: Duration = Duration::from_secs(1);

/// A port at which requests wait. Dropped before it leads anywhere, it answers that the app does
/// not run.
#[derive(Debug)]
pub struct Hold {
    /// The port.
    pub port: u16,
    /// Where what is held goes, once that is known.
    to: Arc<OnceLock<u16>>,
    over: Cancel,
}

impl Hold {
    /// Begins to hold what comes to a port. That is best one that no app may listen at: the router
    /// may ask there after this server has been killed.
    ///
    /// # Errors
    /// When the system does not give the port, or a thread.
    pub fn new(port: u16) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
        listener.set_nonblocking(true)?;
        let port = listener.local_addr()?.port();
        let hold = Self { port, to: Arc::default(), over: Cancel::new()? };
        let (to, over) = (Arc::clone(&hold.to), hold.over.clone());
        Builder::new().name("hold".to_owned()).spawn(move || hold_all(&listener, &to, &over))?;
        Ok(hold)
    }

    /// Lets all that is held go on to a process at this port.
    pub fn lead_to(self, port: u16) {
        let _ = self.to.set(port);
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.over.cancel();
    }
}

/// Holds what comes until it is known where it goes, and then lets it go there, with what comes a
/// moment later.
fn hold_all(listener: &TcpListener, to: &Arc<OnceLock<u16>>, over: &Cancel) {
    let mut held = VecDeque::new();
    while !over.is_cancelled() {
        let patience = held.front().map_or(PATIENCE, |(until, _)| left(*until));
        if wait_any(&[listener.as_fd(), over.as_fd()], patience).is_err() {
            return;
        }
        accept(listener, MOST - held.len(), |client| {
            held.push_back((Instant::now() + PATIENCE, client));
        });
        while held.front().is_some_and(|(until, _)| left(*until).is_zero()) {
            held.pop_front().into_iter().for_each(|(_, client)| go_on(client, to));
        }
    }
    held.into_iter().for_each(|(_, client)| go_on(client, to));
    let until = Instant::now() + LATE;
    while !left(until).is_zero() && wait_any(&[listener.as_fd()], left(until)).is_ok() {
        // One for this thread, one for each request that passes.
        let room = (MOST + 1).saturating_sub(Arc::strong_count(to));
        accept(listener, room, |client| go_on(client, to));
    }
}

fn left(until: Instant) -> Duration {
    until.saturating_duration_since(Instant::now())
}

/// Takes the connections that wait, as many as there is room for; the others are told to come again.
fn accept(listener: &TcpListener, room: usize, mut take: impl FnMut(TcpStream)) {
    for number in 0.. {
        match listener.accept() {
            Ok((client, _)) if number < room => take(client),
            Ok((mut client, _)) => {
                let _ = client.write_all(SORRY);
            }
            Err(error) => {
                // Without a descriptor it would be ready, and fail, again and again.
                if error.kind() != ErrorKind::WouldBlock {
                    thread::sleep(PAUSE);
                }
                return;
            }
        }
    }
}

/// Lets a request go where it is known to go by now, or answers it.
fn go_on(client: TcpStream, to: &Arc<OnceLock<u16>>) {
    let to = Arc::clone(to);
    let serve = move || {
        let _ = serve(&client, to.get().copied());
    };
    let _ = Builder::new().name("held".to_owned()).stack_size(STACK).spawn(serve);
}

fn serve(client: &TcpStream, to: Option<u16>) -> io::Result<()> {
    client.set_nonblocking(false)?;
    if let Some(port) = to
        && let Ok(app) = TcpStream::connect((Ipv4Addr::LOCALHOST, port))
    {
        return thread::scope(|scope| {
            let back = Builder::new().stack_size(STACK);
            back.spawn_scoped(scope, || pass(&app, client))?;
            pass(client, &app);
            Ok(())
        });
    }
    let mut client = client;
    client.write_all(SORRY)?;
    client.shutdown(Shutdown::Write)?;
    client.set_read_timeout(Some(REST_TIME))?;
    io::copy(&mut client.take(REST), &mut io::sink()).map(drop)
}

/// Passes bytes on until one of them ends, which ends the other: neither the router nor an app
/// goes on with half a connection.
fn pass(mut from: &TcpStream, mut to: &TcpStream) {
    let _ = io::copy(&mut from, &mut to);
    for end in [from, to] {
        let _ = end.shutdown(Shutdown::Both);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(hold: &Hold) -> TcpStream {
        let mut client = TcpStream::connect((Ipv4Addr::LOCALHOST, hold.port)).unwrap();
        client.write_all(b"question").unwrap();
        client
    }

    fn all_of(mut client: TcpStream) -> String {
        let mut text = String::new();
        client.read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn what_is_held_goes_on_whole_once_it_is_known_where_to() {
        let app = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let hold = Hold::new(0).unwrap();
        let clients: Vec<_> = (0..5).map(|_| client(&hold)).collect();
        app.set_nonblocking(true).unwrap();
        assert!(app.accept().is_err(), "nobody comes before");
        app.set_nonblocking(false).unwrap();
        hold.lead_to(app.local_addr().unwrap().port());
        for _ in &clients {
            let (mut stream, _) = app.accept().unwrap();
            let mut question = [0; 8];
            stream.read_exact(&mut question).unwrap();
            assert_eq!(&question, b"question");
            stream.write_all(b"answer").unwrap();
        }
        clients.into_iter().for_each(|client| assert_eq!(all_of(client), "answer"));
    }

    #[test]
    fn what_is_held_in_vain_is_told_to_come_again() {
        let hold = Hold::new(0).unwrap();
        let one = client(&hold);
        drop(hold);
        let text = all_of(one);
        assert!(text.starts_with("HTTP/1.1 503 ") && text.contains("Retry-After"), "{text}");
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("Content-Length: {}", body.len())), "{head}");
    }

    #[test]
    fn no_more_is_held_than_there_is_room_for() {
        let hold = Hold::new(0).unwrap();
        let held: Vec<_> = (0..MOST).map(|_| client(&hold)).collect();
        let mut late = TcpStream::connect((Ipv4Addr::LOCALHOST, hold.port)).unwrap();
        let mut begin = [0; 12];
        late.read_exact(&mut begin).unwrap();
        assert_eq!(&begin, b"HTTP/1.1 503", "at once");
        held[0].set_nonblocking(true).unwrap();
        assert!((&held[0]).read(&mut begin).is_err(), "it waits");
    }
}
