//! Waits until a release has proved that it serves, or has failed to.

use super::instance::Instance;
use super::port::{Listener, held_by, listeners};
use crate::model::{HealthPath, HealthTimeout};
use crate::proc::{Cancel, Exit, wait_any};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

/// Time between two looks at an app that takes its time.
const EVERY: Duration = Duration::from_millis(250);

/// The same at the beginning: most apps are there within a blink.
const SOON: Duration = Duration::from_millis(10);

/// How long an app without a health path must stay up after it took a connection.
const STAYS_UP: Duration = Duration::from_secs(2);

/// How long one request may take; what is slower than this is not well.
const ANSWER: Duration = Duration::from_secs(10);
/// How long a connection may take: over loopback the kernel makes it, or refuses it, at once.
const CONNECTING: Duration = Duration::from_secs(1);

/// Bytes of an answer's first line that are read.
const FIRST_LINE: usize = 256;

/// What is expected of a release.
#[derive(Debug, Clone, Copy)]
pub struct Check<'a> {
    /// The port that it was given.
    pub port: u16,
    /// The user that is the app's alone, where there is one.
    pub uid: Option<u32>,
    /// Where it says that it is well; empty when a connection is enough.
    pub path: &'a HealthPath,
    /// How long it may take.
    pub timeout: HealthTimeout,
}

/// What came of it.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It serves.
    Well,
    /// It ended meanwhile.
    Ended(Exit),
    /// It did not prove itself in time; the sentence says what was missing.
    Unwell(String),
    /// It was cancelled from outside.
    Cancelled,
}

/// Who listens on a port that an app was given.
#[derive(Debug, PartialEq, Eq)]
enum Who {
    Nobody,
    /// Another program, at least where the app would.
    Another,
    /// The app, but at this address only.
    Elsewhere(SocketAddr),
    /// The app, and requests to 127.0.0.1 reach it.
    TheApp,
}

impl Who {
    fn listens(port: u16, uid: Option<u32>, instance: &Instance, all: &[Listener]) -> Self {
        let on_port: Vec<_> = all.iter().filter(|l| l.address.port() == port).collect();
        if on_port.is_empty() {
            // To look at all processes costs more than this.
            return Self::Nobody;
        }
        let ours = held_by(&instance.processes(), uid, port, all);
        let ours: Vec<_> = ours.iter().filter(|l| l.address.port() == port).collect();
        let others = on_port.iter().any(|l| l.is_on_loopback() && !ours.contains(l));
        match ours.first() {
            None => Self::Another,
            Some(_) if others => Self::Another,
            Some(_) if ours.iter().any(|l| l.is_on_loopback()) => Self::TheApp,
            Some(first) => Self::Elsewhere(first.address),
        }
    }
}

/// Whether the app itself, and nobody else, answers at 127.0.0.1 on the port that it
/// was given, by these listening sockets of the machine.
#[must_use]
pub fn listens(port: u16, uid: Option<u32>, instance: &Instance, all: &[Listener]) -> bool {
    Who::listens(port, uid, instance, all) == Who::TheApp
}

impl Check<'_> {
    /// Looks at once and then ever less often, down to every 250 ms, until the answer is clear.
    pub fn wait(&self, instance: &mut Instance, cancel: &Cancel) -> Verdict {
        let begun = Instant::now();
        let until = begun + Duration::from_secs(self.timeout.seconds().into());
        let mut connected_since: Option<Instant> = None;
        loop {
            // Decided before the look, so that the last look has a sentence.
            let late = Instant::now() >= until;
            let missing = match self.listener(late, instance) {
                Ok(()) => self.prove(until, instance, cancel).err(),
                Err(sentence) => Some(sentence),
            };
            if let Some(exit) = instance.try_wait() {
                return Verdict::Ended(exit);
            }
            if cancel.is_cancelled() {
                return Verdict::Cancelled;
            }
            let now = Instant::now();
            match missing {
                None if !self.path.as_str().is_empty() => return Verdict::Well,
                None if now.duration_since(*connected_since.get_or_insert(now)) >= STAYS_UP => {
                    return Verdict::Well;
                }
                None => {}
                Some(sentence) if late => return Verdict::Unwell(sentence),
                Some(_) => connected_since = None,
            }
            let pause = (begun.elapsed() / 4).clamp(SOON, EVERY);
            let _ = wait_any(&[instance.as_fd(), cancel.as_fd()], pause);
        }
    }

    /// Whether the app itself, and nobody else, listens on its port.
    fn listener(&self, late: bool, instance: &Instance) -> Result<(), String> {
        let all = listeners();
        let (port, seconds) = (self.port, self.timeout.seconds());
        match Who::listens(port, self.uid, instance, &all) {
            Who::TheApp => Ok(()),
            Who::Another => Err(format!("another program has taken port {port}; deploy again")),
            Who::Elsewhere(address) => Err(format!(
                "the app listens on {address} only, and must listen on 127.0.0.1 (the variable HOST) \
                 or on all addresses"
            )),
            // Nobody reads this sentence, and the one below costs a look at all processes.
            Who::Nobody if !late => Err(String::new()),
            Who::Nobody => {
                let elsewhere = held_by(&instance.processes(), self.uid, port, &all);
                let elsewhere = elsewhere.first().map_or_else(String::new, |l| {
                    format!(" (it listens on {} instead)", l.address)
                });
                Err(format!(
                    "nothing listened on port {port} within {seconds} seconds{elsewhere}: the app \
                     must listen on 127.0.0.1 at the port that the variable PORT names, which \
                     a start command writes as $PORT"
                ))
            }
        }
    }

    /// Connects, and asks for the health path when there is one.
    fn prove(
        &self,
        until: Instant,
        instance: &mut Instance,
        cancel: &Cancel,
    ) -> Result<(), String> {
        let path = self.path.as_str();
        let address = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), self.port);
        let until = until.min(Instant::now() + ANSWER).max(Instant::now() + EVERY);
        let stream = TcpStream::connect_timeout(&address, CONNECTING)
            .map_err(|error| format!("no connection to port {}: {error}", self.port))?;
        if path.is_empty() {
            return Ok(());
        }
        let mut go_on = || instance.try_wait().is_none() && !cancel.is_cancelled();
        let failed = |what: String| {
            format!("GET {path} did not succeed within {} seconds: {what}", self.timeout.seconds())
        };
        match get(stream, path, until, &mut go_on) {
            Ok(status) if (200..400).contains(&status) => Ok(()),
            Ok(status) => Err(failed(format!("it answered {status}"))),
            Err(error) => Err(failed(error.to_string())),
        }
    }
}

/// Asks for a path and answers the status of the response. No more than the first
/// line is read: the rest may have no end.
fn get(
    mut stream: TcpStream,
    path: &str,
    until: Instant,
    go_on: &mut dyn FnMut() -> bool,
) -> io::Result<u16> {
    stream.set_write_timeout(Some(EVERY))?;
    stream.set_read_timeout(Some(EVERY))?;
    let host = stream.peer_addr()?;
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: Better-PaaS health check\r\n\
         Accept: */*\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes())?;
    let mut line = Vec::new();
    let mut byte = [0];
    while line.len() < FIRST_LINE && byte != *b"\n" {
        match stream.read(&mut byte) {
            Ok(0) => break,
            Ok(_) => line.push(byte[0]),
            Err(error) if is_passing(&error) => {}
            Err(error) => return Err(error),
        }
        if Instant::now() >= until || !go_on() {
            return Err(io::Error::new(ErrorKind::TimedOut, "it did not answer in time"));
        }
    }
    let status = std::str::from_utf8(&line).ok().and_then(read_status);
    status.ok_or_else(|| io::Error::new(ErrorKind::InvalidData, "its answer was not HTTP"))
}

fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

/// `HTTP/1.1 200 OK` → 200 (RFC 9112, section 4).
fn read_status(line: &str) -> Option<u16> {
    let rest = line.strip_prefix("HTTP/1.")?;
    rest.split(' ').nth(1)?.trim_end().parse().ok().filter(|status| (100..600).contains(status))
}

#[cfg(test)]
mod tests;
