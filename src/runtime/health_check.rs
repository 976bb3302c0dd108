//! Waits until a release has proved that it serves, or has failed to.
//!
//! It is asked as a visitor's browser would ask through the router: apps answer no host but
//! their own, and send who came over plain HTTP elsewhere.

use super::exit_reason::own_port;
use super::instance::Instance;
use super::tcp_sockets::{Socket, held_by, listeners};
use crate::http_client::{Answer, Patience};
use crate::model::{HealthPath, HealthTimeout};
use crate::proc::{Cancel, Exit, wait_any};
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

/// Time between two looks at an app that takes its time.
const EVERY: Duration = Duration::from_millis(250);

/// The same at the beginning: most apps are there within a blink.
const SOON: Duration = Duration::from_millis(5);

/// How long an app without a health path must stay up after it took a connection, when what
/// it answers proves nothing.
const STAYS_UP: Duration = Duration::from_secs(2);

/// How long nobody may listen at the port before it is said where the app listens instead,
/// and between two looks at that, which cost a look at all processes.
const ELSEWHERE: Duration = Duration::from_secs(5);

/// How long one request may take; what is slower than this is not well.
const ANSWER: Duration = Duration::from_secs(10);
/// How long a connection may take: over loopback the kernel makes it, or refuses it, at once.
const CONNECTING: Duration = Duration::from_secs(1);

/// How much of the rest is taken, and for how long, so that an app sees no broken connection.
const REST: usize = 64 << 10;
const REST_TIME: Duration = Duration::from_millis(50);

/// What is wrong with an app that takes its time.
const LATE: &str = "it did not answer in time";

/// The first status of those with which a server says that it has failed itself.
const SERVER_ERROR: u16 = 500;

/// How a visitor comes to an app.
#[derive(Debug, Clone)]
pub struct Visit {
    /// `http` or `https`.
    pub scheme: String,
    /// The host, with a port that is not the usual one.
    pub host: String,
}

impl Visit {
    /// What is asked, for people. Without a path it is the first page.
    pub fn request(&self, path: &str) -> String {
        format!("GET {} with the Host {}", or_first(path), self.host)
    }

    /// What was answered, and what is the matter when that is most likely known.
    fn answered(&self, status: u16) -> String {
        let host = &self.host;
        match status {
            400 | 403 | 421 => format!(
                "it answered {status} to the Host {host}; if the app has a list of the hosts that \
                 it takes (ALLOWED_HOSTS), that one must be in it"
            ),
            _ => format!("it answered {status} to the Host {host}"),
        }
    }
}

/// What is expected of a release.
#[derive(Debug, Clone)]
pub struct HealthCheck<'a> {
    /// The port that it was given.
    pub port: u16,
    /// The user that is the app's alone, where there is one.
    pub uid: Option<u32>,
    /// Where it says that it is well; empty when any answer is enough.
    pub path: &'a HealthPath,
    /// How long it may take.
    pub timeout: HealthTimeout,
    /// Who asks.
    pub visit: Visit,
}

/// What one look has found.
enum Look {
    /// Nobody to ask; the sentence says what is missing.
    Nobody(String),
    /// An HTTP answer with this status.
    Status(u16),
    /// It took the connection, and gave no such answer.
    Silent(String),
    /// It took the connection, and its time was over before it answered.
    Late,
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
pub enum Who {
    /// Nobody does.
    Nobody,
    /// Another program, at least where the app would.
    Another,
    /// The app, but at this address only.
    Elsewhere(SocketAddr),
    /// The app, and requests to 127.0.0.1 reach it.
    TheApp,
}

impl Who {
    /// By the listening sockets of the machine.
    pub fn listens(port: u16, uid: Option<u32>, instance: &Instance, all: &[Socket]) -> Self {
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

impl HealthCheck<'_> {
    /// Looks at once and then ever less often, down to every 250 ms, until the answer is clear.
    /// What the owner should know meanwhile is said.
    pub fn wait(&self, instance: &mut Instance, cancel: &Cancel, say: &dyn Fn(&str)) -> Verdict {
        let begun = Instant::now();
        let until = begun + Duration::from_secs(self.timeout.seconds().into());
        let mut elsewhere_at = Some(begun + ELSEWHERE);
        let mut there_since: Option<Instant> = None;
        let mut answered: Option<(Instant, u16)> = None;
        loop {
            // Decided before the look, so that the last look has a sentence.
            let late = Instant::now() >= until;
            let mut look = self.look(late, &mut there_since, until, instance, cancel);
            match (&look, answered) {
                (Look::Status(status), _) => answered = Some((Instant::now(), *status)),
                // What it has just answered says more than a last question that was cut short.
                (Look::Late, Some((at, status))) if late && at.elapsed() < ANSWER => {
                    look = Look::Status(status);
                }
                _ => {}
            }
            if let Some(exit) = instance.try_wait() {
                return Verdict::Ended(exit);
            }
            if cancel.is_cancelled() {
                return Verdict::Cancelled;
            }
            let stays = there_since.is_some_and(|since| since.elapsed() >= STAYS_UP);
            match self.judge(&look, stays, say) {
                Ok(()) => return Verdict::Well,
                Err(Some(sentence)) if late => return Verdict::Unwell(sentence),
                Err(_) => {}
            }
            if matches!(look, Look::Nobody(_))
                && elsewhere_at.is_some_and(|at| Instant::now() >= at)
            {
                let found = self.elsewhere(instance, &listeners());
                elsewhere_at = found.is_none().then(|| Instant::now() + ELSEWHERE);
                found.iter().for_each(|address| {
                    say(&format!("It listens on {address}, not on port {} (PORT)", self.port));
                });
            }
            let pause = (begun.elapsed() / 8).clamp(SOON, EVERY);
            let _ = wait_any(&[instance.as_fd(), cancel.as_fd()], pause);
        }
    }

    /// Whether it has proved itself; otherwise what is missing, unless it only takes time now.
    /// What is odd about an app that goes live without a health path is said.
    fn judge(&self, look: &Look, stays: bool, say: &dyn Fn(&str)) -> Result<(), Option<String>> {
        let what = match look {
            Look::Nobody(sentence) => return Err(Some(sentence.clone())),
            Look::Status(200..400) => return Ok(()),
            Look::Status(status) => self.visit.answered(*status),
            Look::Silent(what) => what.clone(),
            Look::Late => LATE.to_owned(),
        };
        let (path, seconds) = (self.path.as_str(), self.timeout.seconds());
        if !path.is_empty() {
            let sentence = format!("GET {path} did not succeed within {seconds} seconds: {what}");
            return Err(Some(sentence));
        }
        match look {
            Look::Status(..SERVER_ERROR) => say(&format!("GET /: {what}")),
            _ if stays => {
                say(&format!("GET /: {what}; it has stayed up for {} s", STAYS_UP.as_secs()));
            }
            _ => return Err(None),
        }
        Ok(())
    }

    /// Asks, when the app itself, and nobody else, listens on its port.
    fn look(
        &self,
        late: bool,
        there_since: &mut Option<Instant>,
        until: Instant,
        instance: &Instance,
        cancel: &Cancel,
    ) -> Look {
        let address = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), self.port);
        let connected = self.listener(late, instance).and_then(|()| {
            TcpStream::connect_timeout(&address, CONNECTING)
                .map_err(|error| format!("no connection to port {}: {error}", self.port))
        });
        let stream = match connected {
            Ok(stream) => stream,
            Err(sentence) => {
                *there_since = None;
                return Look::Nobody(sentence);
            }
        };
        let now = Instant::now();
        let since = *there_since.get_or_insert(now);
        let until = match self.path.as_str() {
            // What does not answer by then has proved enough.
            "" => since + STAYS_UP,
            _ => until.min(now + ANSWER),
        };
        let until = until.max(now + EVERY);
        let patience = Patience { until, stop: &[instance.as_fd(), cancel.as_fd()] };
        match get(stream, self.path.as_str(), &self.visit, patience) {
            Ok(status) => Look::Status(status),
            Err(error) if error.kind() == ErrorKind::TimedOut => Look::Late,
            Err(error) => Look::Silent(error.to_string()),
        }
    }

    /// Whether the app itself, and nobody else, listens on its port.
    fn listener(&self, late: bool, instance: &Instance) -> Result<(), String> {
        let all = listeners();
        let (port, seconds) = (self.port, self.timeout.seconds());
        match Who::listens(port, self.uid, instance, &all) {
            Who::TheApp => Ok(()),
            Who::Another => Err(format!("another program has taken port {port}")),
            Who::Elsewhere(address) => Err(format!(
                "the app listens on {address} only, and must listen on 127.0.0.1 (the variable HOST) \
                 or on all addresses"
            )),
            // Nobody reads this sentence, and the one below costs a look at all processes.
            Who::Nobody if !late => Err(String::new()),
            Who::Nobody => {
                let instead = self.elsewhere(instance, &all);
                let (elsewhere, cure) = instead.map_or_else(Default::default, |address| {
                    let cure = own_port(&format!("port {}", address.port()));
                    (format!(" (it listens on {address} instead)"), cure)
                });
                Err(format!(
                    "nothing listened on port {port} within {seconds} seconds{elsewhere}: the app \
                     must listen on 127.0.0.1 at the port that the variable PORT names, which \
                     a start command writes as $PORT{cure}"
                ))
            }
        }
    }

    /// Where the app listens, when that is not where it should.
    fn elsewhere(&self, instance: &Instance, all: &[Socket]) -> Option<SocketAddr> {
        let held = held_by(&instance.processes(), self.uid, self.port, all);
        held.first().map(|listener| listener.address)
    }
}

/// The path to ask for, when none is set the first page.
const fn or_first(path: &str) -> &str {
    if path.is_empty() { "/" } else { path }
}

/// Asks for a path and answers the status of the response. Not much more than the first line
/// is read: the rest may have no end.
fn get(
    stream: TcpStream,
    path: &str,
    Visit { scheme, host }: &Visit,
    patience: Patience<'_>,
) -> io::Result<u16> {
    // As the router tells it; the visitor is this machine.
    let request = format!(
        "GET {} HTTP/1.1\r\nHost: {host}\r\nX-Forwarded-For: 127.0.0.1\r\n\
         X-Forwarded-Host: {host}\r\nX-Forwarded-Proto: {scheme}\r\nX-Real-Ip: 127.0.0.1\r\n\
         User-Agent: Better-PaaS health check\r\nAccept: */*\r\nConnection: close\r\n\r\n",
        or_first(path)
    );
    let answer = Answer::to(stream, request.as_bytes(), patience)?;
    let status = answer.status;
    answer.discard(REST, REST_TIME);
    Ok(status)
}

#[cfg(test)]
mod tests;
