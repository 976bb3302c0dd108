//! `server prove DIR`: what an update asks of a new program before it takes the place of the one
//! that runs (P30).

use crate::api::WELL;
use crate::config::{Config, check_bind};
use crate::data_dir::DataDir;
use crate::model::{AnyError, failed};
use crate::store::{DATABASE, Store};
use crate::vault::{Vault, key};
use std::fs::{self, DirBuilder};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use tiny_http::{Response, Server};

/// Has this program do with a copy of the database what a start would, but for apps and the
/// router, which belong to the server that runs: read the settings, find the key, bring the
/// schema up to date, open every secret, and answer. It works on a copy of that copy, and
/// nothing else changes. What it has answered.
///
/// # Errors
/// Why it could not go on with that database.
pub fn prove(copy: &Path) -> Result<String, AnyError> {
    let place = copy.join("proof");
    // Left by one that was killed.
    let _ = fs::remove_dir_all(&place);
    DirBuilder::new().mode(0o700).create(&place).map_err(failed("no place for the proof"))?;
    let proved = open(&copy.join(DATABASE), &place.join(DATABASE));
    let proved = proved.and_then(|()| answer(&place.join("gate.sock")));
    let _ = fs::remove_dir_all(&place);
    proved
}

fn open(copy: &Path, database: &Path) -> Result<(), AnyError> {
    let config = Config::from_env(|name| std::env::var_os(name))?;
    check_bind(&config.routing)?;
    fs::copy(copy, database).map_err(failed(format!("{} is no use", copy.display())))?;
    let data = DataDir::open(&config.data_dir)?;
    let credentials = config.credentials_directory.as_deref();
    let (key, _) = key::load(config.secret_key.as_ref(), credentials, &data, false)?;
    Ok(Store::open(database, Vault::new(key))?.open_secrets()?)
}

/// Answers one request over a socket, and asks it.
fn answer(socket: &Path) -> Result<String, AnyError> {
    let server = Server::http_unix(socket)?;
    thread::spawn(move || server.recv()?.respond(Response::from_string(WELL)));
    let mut asked = UnixStream::connect(socket)?;
    asked.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    asked.read_to_string(&mut answer)?;
    let (_, body) = answer.split_once("\r\n\r\n").ok_or("it did not answer")?;
    Ok(body.to_owned())
}
