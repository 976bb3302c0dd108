//! The fields of an app that its owner writes.

use super::Invalid;

/// Variables that one app may have; far above what real apps use.
pub const MAX_ENV_VARS: usize = 256;
/// Bytes that all names and values of one app's environment may take together;
/// the kernel takes about 2 MiB, real apps a few KiB.
pub const MAX_ENV_TOTAL: usize = 128 * 1024;
/// Bytes of an app's name: it becomes the first label of a host name, which may have 63
/// (RFC 1035, section 2.3.4), and stands in a row of the dashboard.
pub const MAX_APP_NAME: usize = 40;
/// Bytes of a variable's name; the longest in use have some 60.
const MAX_ENV_NAME: usize = 128;
/// Bytes of one variable's value: room for a chain of certificates in PEM form.
const MAX_ENV_VALUE: usize = 32 * 1024;

/// One line of at most `most` bytes, without control characters.
fn plain(text: &str, most: usize, too_long: &'static str) -> Result<String, Invalid> {
    if text.len() > most {
        Err(Invalid(too_long))
    } else if text.chars().any(char::is_control) {
        Err(Invalid("must not hold control characters or line ends"))
    } else {
        Ok(text.to_owned())
    }
}

text_value! {
    /// An app's name: a DNS label of at most 40 characters, since it becomes a host name.
    AppName, |text| {
        let dash_or_word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if text.is_empty() || text.len() > MAX_APP_NAME {
            Err(Invalid("must have 1 to 40 characters"))
        } else if !text.bytes().all(dash_or_word) || text.starts_with('-') || text.ends_with('-') {
            Err(Invalid("may hold only lower-case letters, digits and dashes, with no dash at either end"))
        } else {
            Ok(text.to_owned())
        }
    }
}

text_value! {
    /// The directory of the repository that holds the app; empty is the top. `/apps/web/` is as
    /// often written as `apps/web`, and can mean nothing else.
    #[derive(Default)]
    RootDir, |text| {
        let text = text.strip_prefix('/').unwrap_or(text);
        let text = text.strip_suffix('/').unwrap_or(text);
        let bad_part = |p: &str| p.is_empty() || p == "." || p == ".." || p == ".git";
        let kept = plain(text, 200, "is too long: at most 200 bytes")?;
        if text.is_empty() || !text.starts_with('-') && !text.split('/').any(bad_part) {
            return Ok(kept);
        }
        Err(Invalid("must be a path inside the repository such as apps/web, without . or .."))
    }
}

text_value! {
    /// A command for the sandbox's shell; empty means detected.
    #[derive(Default)]
    ShellCommand, |text| plain(text, 2000, "is too long: at most 2000 bytes")
}

text_value! {
    /// Where an app says that it is well; empty means any answer below 500.
    #[derive(Default)]
    HealthPath, |text| {
        let kept = plain(text, 500, "is too long: at most 500 bytes")?;
        let visible = text.bytes().all(|b| b.is_ascii_graphic());
        if text.is_empty() || text.starts_with('/') && visible && !text.contains('#') {
            return Ok(kept);
        }
        Err(Invalid("must be a path such as /healthz, in ASCII without spaces or #"))
    }
}

text_value! {
    /// The name of an environment variable (POSIX: letters, digits, underscore).
    EnvName, |text| {
        let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
        if text.is_empty() || text.len() > MAX_ENV_NAME {
            Err(Invalid("must have 1 to 128 characters"))
        } else if !text.bytes().all(word) || text.starts_with(|c: char| c.is_ascii_digit()) {
            Err(Invalid("may hold only letters, digits and underscores, and must not begin with a digit"))
        } else if text == "PORT" {
            Err(Invalid("is PORT, which the platform sets; the app must listen on it"))
        } else {
            Ok(text.to_owned())
        }
    }
}

text_value! {
    /// The value of an environment variable. Line ends are fine (keys in PEM form have them).
    EnvValue, |text| {
        if text.len() > MAX_ENV_VALUE {
            Err(Invalid("is too long: at most 32 KiB"))
        } else if text.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\r' | '\t')) {
            Err(Invalid("must not hold control characters other than line ends and tabs"))
        } else {
            Ok(text.to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_dns_labels() {
        for good in ["a", "shop", "my-app-2", "0", &"a".repeat(40)] {
            assert!(AppName::parse(good).is_ok(), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a_b", "a.b", "a b", "ä", "a\n", &"a".repeat(41)] {
            assert!(AppName::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_root_directory_stays_inside_the_repository() {
        for good in ["", "web", "apps/web", "a b"] {
            for written in [good, &format!("/{good}"), &format!("{good}/")] {
                assert_eq!(RootDir::parse(written).unwrap().as_str(), good);
            }
        }
        for bad in [
            "//etc", "/..", "a/../b", "a//b", "./a", "a//", "-x", ".git", "a\0b", "a\nb",
            "a\u{85}b",
        ] {
            assert!(RootDir::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn environment_names_and_values_have_rules() {
        for bad in ["", "1A", "A-B", "A=B", "PORT", "Ä", "A\0"] {
            assert!(EnvName::parse(bad).is_err(), "{bad}");
        }
        assert!(EnvName::parse("_DATABASE_URL2").is_ok());
        assert!(EnvValue::parse("-----BEGIN\nEND\t").is_ok() && EnvValue::parse("").is_ok());
        assert!(EnvValue::parse("a\0b").is_err() && EnvValue::parse("\u{1b}[0m").is_err());
        assert!(HealthPath::parse("/ok?x=1").is_ok() && HealthPath::parse("ok").is_err());
        assert!(HealthPath::parse("/a b").is_err() && HealthPath::parse("/a\r\nX: y").is_err());
    }

    #[test]
    fn what_was_left_out_is_what_the_same_text_would_be() {
        assert_eq!(RootDir::parse(""), Ok(RootDir::default()));
        assert_eq!(ShellCommand::parse(""), Ok(ShellCommand::default()));
        assert_eq!(HealthPath::parse(""), Ok(HealthPath::default()));
        assert_eq!(crate::model::Branch::parse(""), Ok(crate::model::Branch::default()));
    }
}
