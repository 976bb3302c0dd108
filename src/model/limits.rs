//! What an app may take of the machine, and what of the machine it may see.

use super::{Invalid, checked};
use serde::{Deserialize, Deserializer, Serialize};

/// Directories with sockets that one app may see; few apps have more than a
/// database and a cache.
pub const MAX_HOST_SOCKETS: usize = 8;

/// Bytes of such a directory's path; real ones have some 20.
const MAX_SOCKET_DIR: usize = 200;

/// Directories of `/run` that no app may see: a process that reaches a socket in them can start
/// programs outside of the sandbox, or reads other services' keys.
const CONTROLS: &str = "\
    systemd user dbus credentials docker containerd podman crio k3s buildkit libvirt lxd incus sudo";

macro_rules! number_value {
    (
        $(#[$doc:meta])* $name:ident, $get:ident, $number:ty, $allowed:pat, $rule:literal
        $(, default $default:literal)?
    ) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
        pub struct $name($number);

        impl $name {
            /// Reads the number.
            ///
            /// # Errors
            /// [`Invalid`] when it is out of range.
            pub fn new(number: i64) -> Result<Self, Invalid> {
                match <$number>::try_from(number) {
                    Ok(n) if matches!(n, $allowed) => Ok(Self(n)),
                    _ => Err(Invalid($rule)),
                }
            }

            /// The number.
            pub const fn $get(self) -> $number {
                self.0
            }
        }

        $(impl Default for $name {
            fn default() -> Self {
                Self($default)
            }
        })?

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                checked(from, "must be a whole number", Self::new)
            }
        }
    };
}

number_value! {
    /// Memory that an app may take, in MiB; 0 is the platform's default.
    MemoryMb, get, u32, 0 | 32..=1_048_576,
    "must be a whole number of MiB from 32 to 1048576, or 0 for the default", default 0
}

number_value! {
    /// CPU time that an app may take, in percent of one core; 0 is the platform's default.
    CpuPercent, get, u32, 0..=6400,
    "must be a whole number from 1 to 6400 (percent of one core), or 0 for the default", default 0
}

number_value! {
    /// Processes and threads that an app may have at once; 0 is the platform's default.
    MaxProcesses, get, u32, 0..=10_000,
    "must be a whole number from 1 to 10000, or 0 for the default", default 0
}

number_value! {
    /// Processes of one name that an app has at once; as with any other program, it is started
    /// once.
    Scale, get, u32, 0..=10,
    "must be a whole number from 0 to 10", default 1
}

number_value! {
    /// How long a release may take to prove itself, in seconds. A minute: slow frameworks need
    /// half of it on a small machine.
    HealthTimeout, seconds, u32, 1..=600,
    "must be a whole number of seconds from 1 to 600", default 60
}

number_value! {
    /// A port that an app always listens at, whatever it is told: none that needs root, and none
    /// of those that are given to others (`sandbox::port_range`).
    FixedPort, get, u16, 1024..=19_999 | 30_000..,
    "must be a port from 1024 to 19999 or from 30000 to 65535"
}

text_value! {
    /// A directory of the machine with sockets in it that an app may use, such as
    /// `/run/postgresql`: one below `/run` or `/var/run`, where programs keep their sockets and
    /// nothing else.
    HostSocket, |text| {
        let rest = text.strip_prefix("/run/").or_else(|| text.strip_prefix("/var/run/"));
        let Some(rest) = rest else {
            return Err(Invalid("must be a directory below /run, such as /run/postgresql"));
        };
        let word = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'@');
        let part = |p: &str| !p.is_empty() && p != "." && p != ".." && p.bytes().all(word);
        if text.len() > MAX_SOCKET_DIR || !rest.split('/').all(part) {
            return Err(Invalid(
                "must be a plain path of at most 200 letters, digits, dots, dashes and underscores, without ..",
            ));
        }
        let top = rest.split('/').next().unwrap_or_default();
        if CONTROLS.split(' ').any(|control| control == top) {
            return Err(Invalid("is a way to control the machine, which no app may have"));
        }
        Ok(text.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_have_ranges_and_zero_is_the_default() {
        assert_eq!(MemoryMb::new(0).map(MemoryMb::get), Ok(0));
        assert_eq!(MemoryMb::new(128).map(MemoryMb::get), Ok(128));
        assert!(MemoryMb::new(31).is_err() && MemoryMb::new(-1).is_err());
        assert!(CpuPercent::new(6400).is_ok() && CpuPercent::new(6401).is_err());
        assert!(HealthTimeout::new(0).is_err() && HealthTimeout::new(601).is_err());
        assert!(Scale::new(10).is_ok() && Scale::new(11).is_err() && Scale::new(-1).is_err());
        for port in [1023, 20_000, 29_999, 65_536, -1] {
            assert!(FixedPort::new(port).is_err(), "{port}");
        }
        assert_eq!(FixedPort::new(3000).map(FixedPort::get), Ok(3000));
        assert!(MaxProcesses::new(1).is_ok() && MaxProcesses::new(i64::MAX).is_err());
    }

    #[test]
    fn a_host_socket_is_a_directory_below_run_that_controls_nothing() {
        for good in ["/run/postgresql", "/var/run/redis", "/run/a/b.c", "/run/mysqld"] {
            assert!(HostSocket::parse(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "/",
            "/run",
            "/run/",
            "/etc",
            "/run/../etc",
            "/run//a",
            "run/a",
            "/run/a/..",
            "/run/a b",
            "/run/a\n",
            "/run/systemd",
            "/run/user/0",
            "/var/run/docker",
            "/run/dbus/x",
        ] {
            assert!(HostSocket::parse(bad).is_err(), "{bad}");
        }
    }
}
