//! What is only suspicious in the environment: it may be meant so, and is most likely not.

use super::{OF_THE_ROUTER, SETTINGS};
use crate::model::Routing;
use std::ffi::OsString;

/// Characters of a name, without its underscores, for each slip that is forgiven in it: in
/// short ones a slip makes another program's word.
const FOR_ONE_SLIP: usize = 6;

/// From how many characters on a name with something behind it is most likely meant to be ours.
const LONG: usize = 7;

/// A sentence for each variable among these names that is ignored and should most likely
/// not be. Values are none of its business.
#[must_use]
pub fn doubts(names: impl Iterator<Item = OsString>, routing: &Routing) -> Vec<String> {
    let doubt = |name: String| match meant(&name) {
        Some(ours) => {
            Some(format!("{name} is no setting of this server and has no effect; is it {ours}?"))
        }
        None if routing.on || !OF_THE_ROUTER.contains(&name.as_str()) => None,
        None => Some(format!("{name} has no effect: ROUTER is off")),
    };
    names.filter_map(|name| doubt(name.into_string().ok()?)).collect()
}

/// Which of our names a name that is none of them most likely stands for.
fn meant(name: &str) -> Option<&'static str> {
    // systemd sets the last one.
    let mut names = SETTINGS.iter().map(|(name, _)| *name).chain(["CREDENTIALS_DIRECTORY"]);
    if names.clone().any(|ours| ours == name) {
        return None;
    }
    let bare = bare(name);
    names.find(|ours| {
        let ours = self::bare(ours);
        let slips = ours.len().max(bare.len()) / FOR_ONE_SLIP;
        differences(&ours, &bare) <= slips || ours.len() >= LONG && bare.starts_with(&ours)
    })
}

/// Without case, underscores and plural.
fn bare(name: &str) -> String {
    let bare = name.to_ascii_uppercase().replace('_', "");
    bare.strip_suffix("IES").map(|stem| format!("{stem}Y")).unwrap_or(bare)
}

/// Letters that only one of the two has; where they stand makes no difference, for swapped
/// ones are a slip as well.
fn differences(a: &str, b: &str) -> usize {
    let count = |text: &str, letter| text.bytes().filter(|b| *b == letter).count();
    (0..=u8::MAX).map(|letter| count(a, letter).abs_diff(count(b, letter))).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Variables, routing};
    use crate::model::Trust;

    fn said(names: &[&str], on: bool) -> Vec<String> {
        let routing =
            Routing { on, ..routing::read(Variables(&|_| None), Trust::default()).unwrap() };
        doubts(names.iter().map(OsString::from), &routing)
    }

    #[test]
    fn a_near_miss_of_a_setting_is_told_with_the_setting() {
        for (name, ours) in [
            ("TRUSTED_PROXY", "TRUST_PROXY"),
            ("TRUSTED_PROXIES", "TRUST_PROXY"),
            ("BASEDOMAIN", "BASE_DOMAIN"),
            ("BASE_DOMIAN", "BASE_DOMAIN"),
            ("base_domain", "BASE_DOMAIN"),
            ("LISTEN_ADDRESS", "LISTEN_ADDR"),
            ("ADMIN_TOKEN_FILE", "ADMIN_TOKEN"),
            ("DASHBORD_DOMAIN", "DASHBOARD_DOMAIN"),
            ("HTTP_PORTS", "HTTP_PORT"),
            ("ACME_MAIL", "ACME_EMAIL"),
            ("BETTERPAAS_SECRET_KEY", "BETTER_PAAS_SECRET_KEY"),
        ] {
            let said = said(&[name], true);
            assert!(
                said.len() == 1 && said[0].starts_with(&format!("{name} is no setting")),
                "{name}"
            );
            assert!(said[0].ends_with(&format!("is it {ours}?")), "{said:?}");
        }
    }

    #[test]
    fn settings_and_the_names_of_others_are_nothing_to_tell() {
        let names = SETTINGS.map(|(name, _)| name);
        assert_eq!(said(&names, true), [""; 0]);
        assert_eq!(said(&["CREDENTIALS_DIRECTORY"], true), [""; 0]);
        assert!(OF_THE_ROUTER.iter().all(|name| names.contains(name)));
        let others = [
            "HTTP_PROXY",
            "HTTPS_PROXY",
            "http_proxy",
            "NO_PROXY",
            "ALL_PROXY",
            "PATH",
            "HOME",
            "LISTEN_FDS",
            "LISTEN_PID",
            "LISTEN_FDNAMES",
            "INVOCATION_ID",
            "NOTIFY_SOCKET",
            "STATE_DIRECTORY",
            "RUNTIME_DIRECTORY",
            "CREDENTIALS_PATH",
            "LANG",
            "USER",
            "PORT",
            "HTTP_HOST",
            "DOMAIN",
            "RUST_LOG",
            "MALLOC_MMAP_THRESHOLD_",
            "JOURNAL_STREAM",
            "TERM",
            "SSL_CERT_FILE",
            "HOSTNAME",
            "BASE",
            "DATABASE_URL",
            "XDG_DATA_DIRS",
            "XDG_DATA_HOME",
        ];
        assert_eq!(said(&others, true), [""; 0]);
    }

    #[test]
    fn without_a_router_what_is_for_it_has_no_effect() {
        assert_eq!(said(&["HTTP_PORT", "ROUTER", "LISTEN_ADDR"], false).len(), 1);
        assert!(said(&["BASE_DOMAIN"], false)[0].contains("BASE_DOMAIN has no effect"));
    }
}
