//! Where the new program of an update comes from, and whether it is the one that is meant. It is
//! judged as it is in this process's memory, from which it is written, so that nobody can give
//! it another content in between.

use super::run;
use super::update::{NEW, put};
use crate::model::{AnyError, Update};
use crate::proc::Exec;
use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};
use std::fs;
use std::path::absolute;

/// Who may sign programs, where the owner wants signatures.
const SIGNERS: &str = "/etc/better-paas.signers";

/// The program in a file or at an address, when it has this checksum, or without one that of
/// the file beside it; and a signature, where signers are named.
///
/// # Errors
/// Why it cannot be had, or is not the one that is meant.
pub(super) fn get(update: &Update) -> Result<Vec<u8>, AnyError> {
    let source = &update.source;
    if update.sha256.is_none() && source.contains("://") {
        return Err(
            "an address wants --sha256, from elsewhere: what is there can be changed".into()
        );
    }
    let program = fetch(source)?;
    let expected = match &update.sha256 {
        Some(sum) => sum.clone(),
        None => String::from_utf8(fetch(&format!("{source}.sha256"))?)?,
    };
    compare(&program, &expected)?;
    // A link that leads nowhere is no word that signatures are not wanted.
    if fs::symlink_metadata(SIGNERS).is_ok() {
        // Until it has been judged, the new program's place is free.
        put(NEW, 0o600, fetch(&format!("{source}.sig"))?)?;
        verify(program.clone(), SIGNERS, NEW)?;
    }
    Ok(program)
}

/// A copy of what is there: of a file that is no link or pipe, or over HTTPS, or from this
/// machine; of 64 MiB at most.
fn fetch(source: &str) -> Result<Vec<u8>, AnyError> {
    // Whatever was there is neither followed nor kept.
    let _ = fs::remove_file(NEW);
    let line = if source.contains("://") {
        let scheme = if source.starts_with("http://127.0.0.1:") { "http" } else { "https" };
        let curl = format!("curl -fsSL --proto ={scheme} --max-time 600 -o {NEW} {source}");
        format!("prlimit --fsize=67108864 {curl}")
    } else {
        let file = absolute(source)?.display().to_string();
        format!("dd if={file} of={NEW} bs=1M count=64 iflag=nofollow,nonblock,fullblock")
    };
    run(&line).map_err(|why| format!("{source} could not be had: {why}"))?;
    Ok(fs::read(NEW)?)
}

/// Holds a program against its checksum, the first word as sha256sum(1) writes it.
fn compare(program: &[u8], expected: &str) -> Result<(), AnyError> {
    let sum = HEXLOWER.encode(&Sha256::digest(program));
    let is_meant = expected.split_whitespace().next().map(str::to_lowercase) == Some(sum.clone());
    let other = || format!("it is not the program that is meant: its SHA-256 is {sum}");
    if is_meant { Ok(()) } else { Err(other().into()) }
}

/// `ssh-keygen` has many ways to look at a signature; this one alone asks who has signed.
fn verify(program: Vec<u8>, signers: &str, signature: &str) -> Result<(), AnyError> {
    let how = "-Y verify -I release@better-paas -n better-paas-release -f";
    let exec = Exec::new("ssh-keygen").args(how.split(' ')).args([signers, "-s", signature]);
    let is_good = exec.stdin_bytes(program).run()?.exit.is_success();
    let bad = || format!("its signature is none of those that {signers} names").into();
    is_good.then_some(()).ok_or_else(bad)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// A file with this name and content in a directory of its own; its path.
    fn file(directory: &tempfile::TempDir, name: &str, content: &[u8]) -> String {
        let path = directory.path().join(name);
        fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    }

    #[test]
    fn p30_a_program_must_have_the_checksum_that_is_meant() {
        let sum = HEXLOWER.encode(&Sha256::digest(b"the program"));
        for good in [sum.clone(), sum.to_uppercase(), format!("{sum}  server\n")] {
            assert!(compare(b"the program", &good).is_ok(), "{good}");
        }
        for bad in ["", &sum[1..], &sum.replace(&sum[..1], "x")] {
            let why = compare(b"the program", bad).unwrap_err().to_string();
            assert!(why.contains("not the program that is meant") && why.contains(&sum), "{bad}");
        }
        assert!(compare(b"another", &sum).is_err());
    }

    #[test]
    fn p30_a_signature_must_be_one_of_the_named_signers_over_this_program() {
        let directory = tempfile::tempdir().unwrap();
        let program = file(&directory, "server", b"the program");
        let at = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
        for key in ["ours", "theirs"] {
            ssh_keygen(&["-q", "-t", "ed25519", "-N", "", "-f", &at(key)]);
        }
        let public = fs::read_to_string(at("ours.pub")).unwrap();
        let line = format!("release@better-paas namespaces=\"better-paas-release\" {public}");
        let signers = file(&directory, "signers", line.as_bytes());
        let signature = at("server.sig");
        let judged = |key: &str, namespace: &str, program_now: &[u8]| {
            let _ = fs::remove_file(&signature);
            ssh_keygen(&["-q", "-Y", "sign", "-f", &at(key), "-n", namespace, &program]);
            verify(program_now.to_vec(), &signers, &signature)
        };
        judged("ours", "better-paas-release", b"the program").unwrap();
        assert!(judged("ours", "better-paas-release", b"the programs").is_err());
        assert!(judged("theirs", "better-paas-release", b"the program").is_err());
        let why = judged("ours", "another", b"the program").unwrap_err().to_string();
        assert!(why.contains("signers"), "{why}");
    }

    fn ssh_keygen(words: &[&str]) {
        let done = Exec::new("ssh-keygen").args(words).run().unwrap();
        assert!(done.exit.is_success(), "ssh-keygen {words:?}: {done:?}");
    }
}
