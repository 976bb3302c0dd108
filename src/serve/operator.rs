//! What a running server does for the operator's commands, over a socket of their own.

use super::{sample, upload};
use crate::data_dir::DataDir;
use crate::deploy::Deployer;
use crate::model::{AnyError, AppId, AppName, failed};
use crate::ops::protocol::{Answer, Request, read_line};
use crate::proc::{Cancel, Exit, wait_any};
use crate::store::{Act, App, Store};
use crate::sync::lock;
use crate::vault::key::{FILE, Key, exchange};
use rustix::fs::{FileType, fstat};
use rustix::net::sockopt::socket_peercred;
use rustix::process::geteuid;
use std::fs::File;
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::{self, Builder};
use std::time::{Duration, Instant};
use zeroize::Zeroizing;

/// Commands at once: each has a thread.
const MOST: usize = 8;

/// How long a command may take to say what it wants.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long a program has after its terminal has gone, which tells it so (SIGHUP).
const HANGUP: Duration = Duration::from_secs(5);

/// The pause after a connection that could not be taken.
const PAUSE: Duration = Duration::from_millis(100);

/// Bytes that are read of a file with a key, which has 65.
const LONGEST_KEY: u64 = 1024;

/// Why the key is not changed.
const PINNED: &str = "the key is pinned by BETTER_PAAS_SECRET_KEY or the systemd credential \
    better_paas_secret_key, so that the next start would open nothing; write it into secret.key in \
    the data directory, take it away there, restart the server, and try again";

/// What commands are served with: where the key is, unless something pins it, for one at a time.
type Served<'a> = (&'a Deployer, Option<&'a Mutex<DataDir>>);

/// Serves commands, each on a thread of its own, until the server stops.
pub(super) fn run(listener: &UnixListener, served: Served<'_>, stop: &Cancel) {
    let seats = Arc::new(());
    thread::scope(|scope| {
        while !stop.is_cancelled() {
            let client = match listener.accept() {
                Ok((client, _)) => client,
                Err(error) => {
                    // Without a descriptor it would be ready, and fail, again and again.
                    if error.kind() != ErrorKind::WouldBlock {
                        thread::sleep(PAUSE);
                    }
                    let _ = wait_any(&[listener.as_fd(), stop.as_fd()], Duration::MAX);
                    continue;
                }
            };
            let seat = Arc::clone(&seats);
            let serve = move || {
                let is_full = Arc::strong_count(&seat) > MOST + 1;
                if let Err(error) = serve(&client, served, stop, is_full) {
                    log::warn!("an operator's command was not answered: {error}");
                }
            };
            if let Err(error) =
                Builder::new().name("operator".to_owned()).spawn_scoped(scope, serve)
            {
                log::warn!("no thread for an operator's command: {error}");
            }
        }
    });
}

fn serve(
    client: &UnixStream,
    served: Served<'_>,
    stop: &Cancel,
    is_full: bool,
) -> Result<(), AnyError> {
    let uid = socket_peercred(client)?.uid;
    if !uid.is_root() && uid != geteuid() {
        return Err(format!("it is user {}'s", uid.as_raw()).into());
    }
    let began = Instant::now();
    let goes_on = || match PATIENCE.checked_sub(began.elapsed()) {
        Some(left) => Ok(wait_any(&[client.as_fd(), stop.as_fd()], left)? && !stop.is_cancelled()),
        None => Ok(false),
    };
    let (line, files) = read_line(client, goes_on)?;
    let answer: Answer = match serde_json::from_slice(&line) {
        _ if is_full => Err(format!("{MOST} commands are at work already; wait until one ends")),
        Ok(request) => {
            let done = act(client, served, (request, files), stop);
            done.map_err(|error| error.to_string())
        }
        Err(_) => Err("the running server is of another version; restart it".to_owned()),
    };
    // It may have gone long ago.
    let mut client = client;
    let _ = client.write_all((serde_json::to_string(&answer)? + "\n").as_bytes());
    Ok(())
}

/// Does what a client asks for, and puts it down as it went; the exit code of its command.
fn act(
    client: &UnixStream,
    (deployer, keys): Served<'_>,
    (request, files): (Request, Vec<OwnedFd>),
    stop: &Cancel,
) -> Result<u8, AnyError> {
    let store = &deployer.tools.store;
    let noted = |act, app: Option<App>, done: Result<u8, AnyError>| {
        let outcome = match &done {
            Ok(0) => "ok".to_owned(),
            Ok(code) => format!("exit code {code}"),
            Err(_) => "not_done".to_owned(),
        };
        store.audit(&Act { outcome, ..Act::new("shell", act).about(app) });
        done
    };
    match request {
        Request::Run { app, command, term } => {
            let app = named(store, &app)?;
            let streams = (three(files)?, term.as_deref());
            let done = run_command(client, deployer, (&app.id, &command), streams);
            noted("run", Some(app), done)
        }
        Request::Deploy { app } => {
            let app = named(store, &app)?;
            let done = upload::run(deployer, &app.id, three(files)?, (client, stop));
            noted("deploy", Some(app), done)
        }
        Request::Sample => {
            let app = sample::app(deployer)?;
            let [_, out, err] = three(files)?;
            let streams = [sample::archive()?, out, err];
            let done = upload::run(deployer, &app.id, streams, (client, stop));
            noted("deploy", Some(app), done)
        }
        // Its row is written with the change.
        Request::Rekey => rekey(store, keys, files).or_else(|why| noted("rekey", None, Err(why))),
    }
}

/// Seals every value with the key in a file, or a new one. On the disk it takes the place of the old
/// one just before, which stays beside it: whichever the database wants is there at the next start.
fn rekey(
    store: &Store,
    keys: Option<&Mutex<DataDir>>,
    files: Vec<OwnedFd>,
) -> Result<u8, AnyError> {
    let data = &*lock(keys.ok_or(PINNED)?);
    let old = Key::saved(data, FILE)?.filter(|key| key.id() == store.key_id());
    let old = old.ok_or("the key file is not that of the key in force; restart the server")?;
    let new = match files.into_iter().next() {
        Some(file) => {
            let (file, mut text) = (File::from(file), Zeroizing::new(String::new()));
            // Nothing that this would have to wait for.
            if file.metadata()?.is_file() {
                file.take(LONGEST_KEY).read_to_string(&mut text)?;
            }
            Key::parse(&text).ok_or("the file holds no key: 32 bytes in hex or base64")?
        }
        None => Key::random()?,
    };
    let mut saved = false;
    let save = || {
        saved = true;
        exchange(data, &new, &old)
    };
    let done = store.rekey(new.clone(), save);
    if done.is_err() && saved {
        // Should this fail too, the next start does it.
        let _ = exchange(data, &old, &new);
    }
    done?;
    Ok(0)
}

/// Runs a command in an app's place on the client's own streams, until it or the client ends.
fn run_command(
    client: &UnixStream,
    deployer: &Deployer,
    (app, command): (&AppId, &[String]),
    (streams, term): ([OwnedFd; 3], Option<&str>),
) -> Result<u8, AnyError> {
    let words: Vec<&str> = command.iter().map(String::as_str).collect();
    if words.is_empty() || words.iter().copied().chain(term).any(|word| word.contains('\0')) {
        return Err("the command is empty, or holds a zero byte".into());
    }
    let gone = OnceLock::new();
    let patience = if term.is_some() { HANGUP } else { Duration::ZERO };
    let must_end = || {
        // It has said all that it has to say. The disk is no reason: a person at a terminal may
        // be making room.
        let is_gone = wait_any(&[client.as_fd()], Duration::ZERO).unwrap_or(false)
            && gone.get_or_init(Instant::now).elapsed() >= patience;
        is_gone.then(|| "who had started it is gone".to_owned())
    };
    match deployer.runs.attach(app, &words, (streams, term), &must_end)? {
        Exit::Code(code) => Ok(u8::try_from(code).unwrap_or(u8::MAX)),
        // As a shell says it.
        Exit::Signal(signal) => Ok(u8::try_from(128 + signal).unwrap_or(u8::MAX)),
        exit => Err(format!("the command did not end by itself: {exit}").into()),
    }
}

/// A client's streams, none of which leads to other files.
fn three(files: Vec<OwnedFd>) -> Result<[OwnedFd; 3], AnyError> {
    let streams = <[OwnedFd; 3]>::try_from(files).map_err(|_| "three streams are needed")?;
    for stream in &streams {
        let about = fstat(stream).map_err(failed("a stream is not known"))?;
        if FileType::from_raw_mode(about.st_mode) == FileType::Directory {
            return Err("a stream is a directory, through which the app could leave its \
                        sandbox; give a file"
                .into());
        }
    }
    Ok(streams)
}

/// The app that is called so.
fn named(store: &Store, name: &str) -> Result<App, AnyError> {
    let mut found = AppName::parse(name).map_or(Ok(None), |name| store.app_named(&name))?;
    if let (None, Ok(id)) = (&found, AppId::parse(name)) {
        found = store.app(&id)?;
    }
    Ok(found.ok_or_else(|| format!("there is no app {}", name.escape_debug()))?)
}
