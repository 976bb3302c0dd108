//! What to do about an app that did not start, by what it wrote.

/// What to do about a port that is taken, or is not for this app, when its output speaks of one.
/// Only the port that we gave it is its own; the old release and other apps hold theirs.
pub fn about_port(output: &str) -> &'static str {
    let output = output.to_ascii_lowercase();
    let says = |words: &[&str]| words.iter().any(|words| output.contains(words));
    if says(&["address already in use", "address in use", "eaddrinuse"]) {
        "; it listens at a port that another program has: an app must listen only at the port \
         that the variable PORT names"
    } else if says(&["listen eacces", "bind: permission denied", "permission denied - bind"])
        || (says(&["permission denied", "errno 13"]) && says(&["bind", "listen", "socket"]))
    {
        "; it may listen at no other port than that which the variable PORT names"
    } else {
        ""
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_recognised_in_what_runtimes_print() {
        for line in [
            "OSError: [Errno 98] Address already in use",
            "Error: listen EADDRINUSE: address already in use 127.0.0.1:3000",
            "Address already in use - bind(2) for \"127.0.0.1\" port 4567 (Errno::EADDRINUSE)",
        ] {
            assert!(about_port(line).contains("another program"), "{line}");
        }
        for line in [
            "Error: listen EACCES: permission denied 0.0.0.0:3000",
            "s.bind(('', 3000))\nPermissionError: [Errno 13] Permission denied",
            "listen tcp :8080: bind: permission denied",
            "Permission denied - bind(2) for \"127.0.0.1\" port 4567 (Errno::EACCES)",
        ] {
            assert!(about_port(line).contains("may listen at no other"), "{line}");
        }
        for line in ["KeyError: 'ADDRESS'", "open('/etc/shadow'): Permission denied"] {
            assert_eq!(about_port(line), "");
        }
    }
}
