//! Webhooks: a delivery proves with the app's own secret that its Git host sent it (P3).
//!
//! A secret has the form of Standard Webhooks, `whsec_` and 32 random bytes in
//! base64, because GitLab takes nothing else for its signatures; to every other
//! host it is just a text. Nothing here knows the names of headers.

use super::AuthError;
use super::token::{equal, random};
use crate::model::{Secret, UnixMillis};
use data_encoding::{BASE64, HEXLOWER, HEXLOWER_PERMISSIVE};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

/// What a secret begins with.
const PREFIX: &str = "whsec_";
/// How far the time in a signature may be from ours, in seconds: what Standard
/// Webhooks proposes. A delivery that was held back longer is sent again by its host.
const TOLERANCE: u64 = 300;
/// Signatures of one delivery that are looked at; a host that changes its secret sends two.
const SIGNATURES: usize = 4;

/// Stands in for the secret of an app that has none, or that does not exist, so
/// that a refusal takes as long as for one that has. What is signed with it is refused, too.
const NOBODYS: &str = "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";

/// One claim of a delivery that it knows the secret.
#[derive(Debug, Clone, Copy)]
pub enum Claim<'a> {
    /// HMAC-SHA256 of the body in hexadecimal; the secret's text is the key.
    Hex(&'a [u8]),
    /// The secret itself.
    Plain(&'a [u8]),
    /// HMAC-SHA256 of id, time and body; the bytes that the secret's base64 stands
    /// for are the key (Standard Webhooks 1.0).
    Signed {
        /// The delivery's own name.
        id: &'a [u8],
        /// Seconds since 1970, in digits.
        time: &'a [u8],
        /// `v1,` and base64, several with a space between.
        signatures: &'a [u8],
    },
}

/// A delivery as it came.
#[derive(Debug, Clone, Copy)]
pub struct Delivery<'a> {
    /// The app's secret, if there is such an app and it has one.
    pub secret: Option<&'a Secret>,
    /// What it shows; all of it has to hold.
    pub claims: &'a [Claim<'a>],
    /// The body, byte for byte.
    pub body: &'a [u8],
}

/// Makes a secret, of 256 random bits, which GitLab demands.
///
/// # Errors
/// [`AuthError::NoRandomness`].
pub fn generate() -> Result<Secret, AuthError> {
    random(PREFIX, &BASE64)
}

/// A short name for something of any length: two different things have two names.
#[must_use]
pub fn fingerprint(kind: &str, bytes: &[u8]) -> String {
    let digest = Sha256::new().chain_update(kind).chain_update([0]).chain_update(bytes).finalize();
    HEXLOWER.encode(&digest)
}

impl Delivery<'_> {
    /// Whether everything that the delivery shows holds, and it shows something. How long
    /// that takes depends on what the sender knows, and not on whether there is a secret.
    pub(super) fn is_genuine(&self, now: UnixMillis) -> bool {
        let nobodys = Secret::new(NOBODYS.to_owned());
        let secret = self.secret.unwrap_or(&nobodys);
        // Once: Gitea and Forgejo show the same one several times.
        let of_body = hmac(secret.expose().as_bytes(), &[self.body]);
        let holds = |claim: &&Claim<'_>| claim.holds(secret, self.body, now, &of_body);
        let held = self.claims.iter().filter(holds).count();
        self.secret.is_some() && held > 0 && held == self.claims.len()
    }
}

impl Claim<'_> {
    fn holds(&self, secret: &Secret, body: &[u8], now: UnixMillis, of_body: &[u8; 32]) -> bool {
        let text = secret.expose();
        match *self {
            Self::Hex(hex) => is(&HEXLOWER_PERMISSIVE.decode(hex).unwrap_or_default(), of_body),
            // Digests, so that the time tells nothing about where the first difference is.
            Self::Plain(shown) => {
                equal(&Sha256::digest(shown).into(), &Sha256::digest(text).into())
            }
            Self::Signed { id, time, signatures } => {
                let key = text.strip_prefix(PREFIX).unwrap_or_default();
                let key = Zeroizing::new(BASE64.decode(key.as_bytes()).unwrap_or_default());
                let expected = hmac(&key, &[id, b".", time, b".", body]);
                let mut held = false;
                for one in signatures.split(|b| *b == b' ').take(SIGNATURES) {
                    let shown = one.strip_prefix(b"v1,").unwrap_or_default();
                    held |= is(&BASE64.decode(shown).unwrap_or_default(), &expected);
                }
                held && !id.is_empty() && !key.is_empty() && is_recent(time, now)
            }
        }
    }
}

fn is_recent(time: &[u8], now: UnixMillis) -> bool {
    let seconds = std::str::from_utf8(time).ok().and_then(|t| t.parse::<u64>().ok());
    let now = u64::try_from(now / 1000).unwrap_or(0);
    seconds.is_some_and(|then| then.abs_diff(now) <= TOLERANCE)
}

fn is(shown: &[u8], expected: &[u8; 32]) -> bool {
    <&[u8; 32]>::try_from(shown).is_ok_and(|shown| equal(shown, expected))
}

/// HMAC-SHA256 (RFC 2104) of the parts one after the other.
fn hmac(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    // A key of any length is fine (RFC 2104, 3), so this has no error.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { return [0; 32] };
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::token::RANDOM;

    const NOW: UnixMillis = 1_700_000_000_000;
    const BODY: &[u8] = b"{\"ref\":\"refs/heads/main\"}";

    /// RFC 4231, 4.2 to 4.8, but for the shortened one (4.6).
    #[test]
    fn hmac_is_that_of_rfc_4231() {
        let long = [0xaa; 131];
        let cases: [(&[u8], &[u8], &str); 6] = [
            (&[0x0b; 20], b"Hi There", "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"),
            (b"Jefe", b"what do ya want for nothing?", "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"),
            (&[0xaa; 20], &[0xdd; 50], "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe"),
            (
                b"\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f\x10\x11\x12\x13\x14\x15\x16\x17\x18\x19",
                &[0xcd; 50],
                "82558a389a443c0ea4cc819899f2083a85f0faa3e578f8077a2e3ff46729665b",
            ),
            (&long, b"Test Using Larger Than Block-Size Key - Hash Key First", "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54"),
            (
                &long,
                b"This is a test using a larger than block-size key and a larger than block-size data. \
                  The key needs to be hashed before being used by the HMAC algorithm.",
                "9b09ffa71b942fcb27635fbcd5b0e944bfdc63644f0713938a7f51535c3a35e2",
            ),
        ];
        for (key, data, expected) in cases {
            assert_eq!(HEXLOWER.encode(&hmac(key, &[data])), expected);
            let (one, two) = data.split_at(data.len() / 2);
            assert_eq!(HEXLOWER.encode(&hmac(key, &[one, two])), expected);
        }
    }

    fn genuine(secret: Option<&Secret>, claims: &[Claim<'_>]) -> bool {
        Delivery { secret, claims, body: BODY }.is_genuine(NOW)
    }

    #[test]
    fn a_secret_has_256_bits_and_the_form_that_gitlab_takes() {
        let (one, two) = (generate().unwrap(), generate().unwrap());
        assert_ne!(one, two);
        let coded = one.expose().strip_prefix(PREFIX).unwrap();
        assert_eq!(BASE64.decode(coded.as_bytes()).unwrap().len(), RANDOM);
        assert_eq!(NOBODYS.len(), one.expose().len());
    }

    #[test]
    fn a_signature_in_hexadecimal_holds_for_its_body_and_secret_alone() {
        let (secret, other) = (generate().unwrap(), generate().unwrap());
        let hex = HEXLOWER.encode(&hmac(secret.expose().as_bytes(), &[BODY]));
        assert!(genuine(Some(&secret), &[Claim::Hex(hex.as_bytes())]));
        assert!(genuine(Some(&secret), &[Claim::Hex(hex.to_uppercase().as_bytes())]));
        assert!(!genuine(Some(&other), &[Claim::Hex(hex.as_bytes())]));
        assert!(!genuine(None, &[Claim::Hex(hex.as_bytes())]));
        let last = if hex.ends_with('0') { "1" } else { "0" };
        for bad in [
            "",
            "00",
            &hex[2..],
            &format!("{hex}00"),
            &format!("sha256={hex}"),
            &format!("{}{last}", &hex[..63]),
        ] {
            assert!(!genuine(Some(&secret), &[Claim::Hex(bad.as_bytes())]), "{bad}");
        }
        let nobodys = HEXLOWER.encode(&hmac(NOBODYS.as_bytes(), &[BODY]));
        assert!(!genuine(None, &[Claim::Hex(nobodys.as_bytes())]));
        assert!(!genuine(None, &[Claim::Plain(NOBODYS.as_bytes())]));
        assert!(!genuine(None, &[Claim::Plain(b"")]) && !genuine(Some(&secret), &[]));
    }

    #[test]
    fn a_good_proof_does_not_rescue_a_bad_one() {
        let secret = generate().unwrap();
        let hex = HEXLOWER.encode(&hmac(secret.expose().as_bytes(), &[BODY]));
        let (good, plain) = (Claim::Hex(hex.as_bytes()), Claim::Plain(secret.expose().as_bytes()));
        assert!(genuine(Some(&secret), &[good, plain]));
        assert!(!genuine(Some(&secret), &[good, Claim::Plain(b"other")]));
        assert!(!genuine(Some(&secret), &[Claim::Hex(b"00"), plain]));
    }

    #[test]
    fn a_standard_webhook_holds_for_its_id_and_for_five_minutes() {
        let secret = generate().unwrap();
        let key = BASE64.decode(&secret.expose().as_bytes()[PREFIX.len()..]).unwrap();
        let at = |seconds: i64| (NOW / 1000 + seconds).to_string();
        let sign = |id: &str, time: &str| {
            let parts = [id.as_bytes(), b".", time.as_bytes(), b".", BODY];
            format!("v1,{}", BASE64.encode(&hmac(&key, &parts)))
        };
        let holds = |id: &str, time: &str, signatures: &str| {
            let (id, time, signatures) = (id.as_bytes(), time.as_bytes(), signatures.as_bytes());
            genuine(Some(&secret), &[Claim::Signed { id, time, signatures }])
        };
        for seconds in [-300, 0, 300] {
            assert!(holds("m1", &at(seconds), &sign("m1", &at(seconds))), "{seconds}");
        }
        for seconds in [-301, 301] {
            assert!(!holds("m1", &at(seconds), &sign("m1", &at(seconds))), "{seconds}");
        }
        let good = sign("m1", &at(0));
        assert!(holds("m1", &at(0), &format!("v1,AAAA {good} v1a,x")));
        assert!(!holds("m2", &at(0), &good) && !holds("m1", &at(1), &good));
        assert!(!holds("", &at(0), &sign("", &at(0))));
        assert!(!holds("m1", "", &sign("m1", "")) && !holds("m1", &at(0), &good[3..]));
        let fifth = format!("{}{good}", "v1,AAAA ".repeat(SIGNATURES));
        assert!(!holds("m1", &at(0), &fifth), "no more than a few are looked at");
    }
}
