//! The files of Caddy's certificates: which of them are only half there.
//!
//! Caddy 2.6 writes them in place. Who kills it at that moment leaves one with which it
//! refuses a whole configuration, or serves one host no more: it takes the certificate for
//! had and gets no other.

use crate::proc::{Cancel, Exec, Exit};
use serde::de::IgnoredAny;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// In seconds.
const TWO_WEEKS: &str = "1209600";

/// Where Caddy keeps what it must not lose, in the router's directory.
pub(super) fn storage(dir: &Path) -> PathBuf {
    dir.join("storage")
}

/// Removes the certificates, of this host or of all, of which a file is not whole and has
/// not been written to for so long. Whether there is any that is not whole.
pub(super) fn discard_broken(dir: &Path, host: Option<&str>, idle: Duration) -> bool {
    let inside = |dir: &Path| fs::read_dir(dir).into_iter().flatten().flatten().map(|e| e.path());
    // Each has a directory of its own, in one of its issuer's.
    let issuers = inside(&storage(dir).join("certificates"));
    let mut certificates: Vec<PathBuf> = issuers.flat_map(|issuer| inside(&issuer)).collect();
    certificates.retain(|dir| host.is_none_or(|host| dir.ends_with(host)));
    let mut any = false;
    for certificate in certificates {
        let Some(broken) = inside(&certificate).find(|file| is_broken(file)) else { continue };
        any = true;
        let written = fs::metadata(broken).and_then(|m| m.modified()).ok();
        if written.and_then(|at| at.elapsed().ok()).unwrap_or_default() >= idle {
            log::warn!("a certificate is not whole and is had anew: {}", certificate.display());
            let _ = fs::remove_dir_all(certificate);
        }
    }
    any
}

/// Whether the certificate that an authority has given to a host runs out within two weeks. The
/// router renews them a month before that.
pub(super) fn runs_out(dir: &Path, host: &str, stop: &Cancel) -> bool {
    let issuers = fs::read_dir(storage(dir).join("certificates")).into_iter().flatten().flatten();
    // Those of our own authority live for hours.
    let given = issuers.filter(|issuer| issuer.file_name() != "local");
    let files = given.map(|issuer| issuer.path().join(host).join(format!("{host}.crt")));
    // Another authority may have given one before.
    let written = |file: &PathBuf| fs::metadata(file).and_then(|about| about.modified()).ok();
    let newest = files.filter(|file| file.exists()).max_by_key(written);
    newest.is_some_and(|file| {
        let asked = ["x509", "-noout", "-checkend", TWO_WEEKS, "-in"];
        // It comes with ca-certificates.
        let openssl = Exec::new("openssl").args(asked).arg(&file);
        openssl.run_until(stop).is_ok_and(|output| output.exit == Exit::Code(1))
    })
}

/// One that cannot be read is for Caddy to complain of.
fn is_broken(file: &Path) -> bool {
    let Ok(text) = fs::read(file) else { return false };
    match file.extension().and_then(|e| e.to_str()) {
        Some("json") => serde_json::from_slice::<IgnoredAny>(&text).is_err(),
        // PEM (RFC 7468): the last line says what has ended.
        Some("crt" | "key") => !text.trim_ascii_end().ends_with(b"-----"),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p28_a_certificate_that_runs_out_within_two_weeks_is_seen_but_for_our_own() {
        let dir = tempfile::tempdir().unwrap();
        let stop = Cancel::new().unwrap();
        let make = |issuer: &str, host: &str, days: &str| {
            let place = storage(dir.path()).join("certificates").join(issuer).join(host);
            fs::create_dir_all(&place).unwrap();
            let made = Exec::new("openssl")
                .args(["req", "-x509", "-newkey", "ed25519", "-nodes", "-subj", "/CN=x", "-days"])
                .args([days, "-keyout", "/dev/null", "-out"])
                .arg(place.join(format!("{host}.crt")));
            assert!(made.run().unwrap().exit.is_success());
        };
        make("acme", "soon.test", "10");
        make("acme", "later.test", "60");
        make("local", "own.test", "1");
        let runs_out = |host| runs_out(dir.path(), host, &stop);
        assert!(runs_out("soon.test"));
        assert!(!["later.test", "own.test", "none.test"].into_iter().any(runs_out));
    }

    #[test]
    fn a_certificate_that_is_half_there_is_removed_and_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let issuer = storage(dir.path()).join("certificates/local");
        let pem = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        let files = [("a.json", "{\"sans\": [\"a\"]}"), ("a.crt", pem), ("a.key", pem)];
        let write = |host: &str| {
            fs::create_dir_all(issuer.join(host)).unwrap();
            files
                .iter()
                .for_each(|(name, text)| fs::write(issuer.join(host).join(name), text).unwrap());
        };
        let discarded = |host, idle| discard_broken(dir.path(), host, idle);
        assert!(!discarded(None, Duration::ZERO), "there are none");
        write("good.test");
        for (name, whole) in files {
            for end in [0, whole.len() / 2, whole.len() - 3] {
                write("bad.test");
                fs::write(issuer.join("bad.test").join(name), &whole[..end]).unwrap();
                assert!(!discarded(Some("good.test"), Duration::ZERO));
                assert!(
                    discarded(None, Duration::from_secs(600)) && issuer.join("bad.test").exists()
                );
                let which = Some("bad.test").filter(|_| end == 0);
                assert!(discarded(which, Duration::ZERO), "{name}: {end} bytes");
                assert!(!issuer.join("bad.test").exists());
            }
        }
        assert!(issuer.join("good.test/a.crt").exists());
    }
}
