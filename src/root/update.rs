//! The steps of an update: a copy of the database, the new program's proof on it, the swap, and
//! back again where the new one does not serve (P30). Apps and the router go on meanwhile, and
//! systemd holds the port.
//!
//! From the swap until the new program has served, the old one lies beside it. Whoever finds it
//! there finds an update that was cut short, and does the rest of it.

use super::facts::Facts;
use super::place::{Place, What};
use super::plan;
use super::privileges::as_server;
use super::{Done, Say, run, wait_until_it_answers};
use crate::config::{Config, LAST_UPDATE, PROGRAM};
use crate::model::{NEWEST_COPY, is_older, unix_millis};
use serde_json::json;
use std::fs;

/// The new program until it is in its place.
pub(super) const NEW: &str = "/opt/better-paas/server.new";
/// The program of before, until the new one has served.
const OLD: &str = "/opt/better-paas/server.old";
/// And after that, for who wants it back.
const BEFORE: &str = "/opt/better-paas/server.before";

/// Puts another program in the place of the installed one, and back where it does not serve. It
/// may be `older` than that when this is meant.
///
/// # Errors
/// Why nothing was changed, or why all of it was changed back.
pub(super) fn replace(config: &Config, new: Vec<u8>, older: bool, say: &mut Say<'_>) -> Done {
    put(NEW, 0o755, new)?;
    let version = version_of(NEW)?;
    // One that does not run any more is mended by any.
    let installed = version_of(PROGRAM).unwrap_or_default();
    if is_older(&version, &installed) && !older {
        let what = format!("version {version} is older than the installed {installed}");
        return Err(format!("{what}; if that is meant: better-paas update FILE --downgrade").into());
    }
    let copy = config.data_dir.join(NEWEST_COPY);
    let ours = if installed.is_empty() { NEW } else { PROGRAM };
    run(&as_server(config.data_dir.display(), &format!("{ours} update-keep")))?;
    say(&format!("the database is copied: {}", copy.display()));
    let proof = as_server(copy.display(), &format!("{NEW} prove {}", copy.display()));
    let proved = run(&proof).and_then(|said| expect(&said, &version));
    proved.map_err(|why| format!("nothing was changed; the new program fails its proof: {why}"))?;
    say("the new program has proved itself on a copy of that");
    // What this machine is refused for is better met before the swap.
    plan::install(&Facts::gather(config)?)?;
    put(OLD, 0o755, fs::read(PROGRAM)?)?;
    fs::rename(NEW, PROGRAM)?;
    finish(config, say)
}

/// What is left of an update once the program was replaced, if it was. One that was killed
/// before that, or on its way back, counts as rolled back.
///
/// # Errors
/// Why it was changed back, or could not be; then the next run tries again.
pub(super) fn finish(config: &Config, say: &mut Say<'_>) -> Done {
    let Ok(old) = fs::read(OLD) else { return Ok(()) };
    let version = version_of(PROGRAM).unwrap_or_default();
    let served = put_in_service(config, say);
    let line = "journalctl -q -u better-paas.service -t server -n 1 -o cat --no-pager";
    let last = run(line).unwrap_or_default();
    // Later, too much would be lost that was written since; not where it is on its way back.
    let is_late = fs::metadata(OLD)?.modified()?.elapsed().is_ok_and(|age| age.as_secs() > 3600);
    let goes_back = served.is_err() && (!is_late || is_in_place(&old));
    if let (Err(why), true) = (&served, goes_back) {
        say(&format!("going back: {why}"));
        put(PROGRAM, 0o755, old.clone())?;
        run("systemctl stop better-paas.service")?;
        run(&as_server(config.data_dir.display(), &format!("{PROGRAM} update-back")))?;
    }
    let new = served.as_ref().map_or("failed", |()| "updated");
    let result = if is_in_place(&old) { "rolled back" } else { new };
    let (reason, at) = (served.as_ref().err(), unix_millis());
    let record = json!({"version": version, "result": result, "reason": reason, "finishedAt": at});
    put(LAST_UPDATE, 0o644, record.to_string().into_bytes())?;
    if goes_back {
        put_in_service(config, say).map_err(|why| format!("the way back failed: {why}"))?;
    }
    // After a failure the next run tries again.
    fs::rename(OLD, if result == "failed" { OLD } else { BEFORE })?;
    served.map_err(|why| format!("{result}: {why}; the last line of its log: {last}"))?;
    say(&format!("{result}; version {version} serves"));
    Ok(())
}

/// Has the program that is installed put its units and the service run it, which must answer
/// with its version.
fn put_in_service(config: &Config, say: &mut Say<'_>) -> Result<(), String> {
    let version = version_of(PROGRAM)?;
    // Those of before serve as well, and the next `install` tries again.
    run(&format!("{PROGRAM} update-units")).unwrap_or_else(|why| why).lines().for_each(&mut *say);
    run("systemctl restart better-paas.service")?;
    wait_until_it_answers(&config.listen, 30)?;
    let socket = config.data_dir.join("gate.sock");
    let ask = "curl -fsS --max-time 10 -H Connection:close http://localhost/healthz --unix-socket";
    expect(&run(&as_server("/tmp", &format!("{ask} {}", socket.display())))?, &version)
}

/// Whether a program that says it is of this version serves as such.
fn expect(served: &str, version: &str) -> Result<(), String> {
    let is_it = served == format!("ok {version}");
    is_it.then_some(()).ok_or_else(|| format!("it serves as {served:?}, not as {version}"))
}

fn version_of(program: &str) -> Result<String, String> {
    let said = run(&as_server("/tmp", &format!("{program} version")));
    let said = said.map_err(|why| format!("{program} does not run: {why}"))?;
    let version = said.strip_prefix("server ");
    version.map(str::to_owned).ok_or_else(|| format!("{program} is no server: it says {said:?}"))
}

/// Whether this is the installed program.
pub(super) fn is_in_place(program: &[u8]) -> bool {
    fs::read(PROGRAM).is_ok_and(|installed| installed == program)
}

/// A file of root's.
pub(super) fn put(path: &'static str, mode: u32, content: Vec<u8>) -> Done {
    Ok(Place { path, owner: "root:root", mode, what: What::File(content.into()) }.put()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p30_a_program_must_serve_as_the_version_that_it_says_it_is() {
        assert_eq!(expect("ok 0.1.1", "0.1.1"), Ok(()));
        for other in ["ok 0.1.0", "ok", "", "ok 0.1.10"] {
            let why = expect(other, "0.1.1").unwrap_err();
            assert!(why.contains("0.1.1"), "{why}");
        }
    }
}
