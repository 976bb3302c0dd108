//! A request's head as it is passed on.

use super::head::{Head, members};
use super::{Also, client::Source};
use std::io::Write as _;

/// The field that says whom a request comes from. No client can send it, nor the next: only
/// fields that the handler looks at are passed on.
pub const CLIENT: &str = "X-Gate-Client";
/// The field that says how it came, of these words: `plain` over HTTP, and `unheeded` with the header of a
/// proxy that is not trusted.
pub const WAY: &str = "X-Gate-Way";
/// The field with the number of a request, by which it is answered
/// ([`super::Completions::answer`]).
pub const NUMBER: &str = "X-Gate-Number";

/// Fields that the handler looks at in every request.
const PASSED: [&str; 5] =
    ["authorization", "content-type", "accept-encoding", "if-none-match", "if-match"];

/// Writes the head that tiny_http gets: what the handler looks at and nothing
/// else, so that no field of a client's choice can trouble it, and with the client
/// under a name that no client can send.
pub(super) fn request(
    head: &Head<'_, '_>,
    source: &Source,
    number: u64,
    also: &Also,
    out: &mut Vec<u8>,
) {
    for part in [head.method, " ", head.target, " HTTP/1.1\r\n"] {
        out.extend_from_slice(part.as_bytes());
    }
    let more: &[&str] = if head.target.starts_with(also.below) { &also.fields } else { &[] };
    let passed = |name: &str| PASSED.iter().chain(more).any(|n| name.eq_ignore_ascii_case(n));
    for field in head.fields.iter().filter(|field| passed(field.name)) {
        // RFC 9110, 7.6.1: a field that `Connection` names belongs to that hop.
        let own = |name: &[u8]| name.eq_ignore_ascii_case(field.name.as_bytes());
        if !members(head.fields, "connection").any(own) {
            for part in [field.name.as_bytes(), b": ", field.value, b"\r\n"] {
                out.extend_from_slice(part);
            }
        }
    }
    // Writing to a Vec cannot fail.
    let _ = write!(out, "{CLIENT}: {}\r\n{NUMBER}: {number}\r\n", source.client);
    let plain = if source.plain { "plain " } else { "" };
    let unheeded = if source.unheeded { "unheeded" } else { "" };
    let _ = write!(out, "{WAY}: {plain}{unheeded}\r\n");
    if head.length > 0 {
        let _ = write!(out, "Content-Length: {}\r\n", head.length);
    }
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gate::head::{NO_FIELDS, judge};
    use crate::model::Client;

    fn passed_on(bytes: &[u8]) -> String {
        let mut room = NO_FIELDS;
        let head = judge(bytes, &mut room, 1024).unwrap();
        let client = Client::parse("2001:db8::1").unwrap();
        let mut out = Vec::new();
        let also =
            Also { below: "/api/hooks/", fields: vec!["x-hub-signature-256", "x-gitlab-token"] };
        request(
            &head,
            &Source { client, trusted_proxy: false, https: false, plain: false, unheeded: false },
            7,
            &also,
            &mut out,
        );
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn what_belongs_to_one_hop_stays_here_and_nobody_names_the_client_but_the_gate() {
        let text = passed_on(
            b"POST /a?b=1 HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, X-Own, host\r\n\
              Keep-Alive: 5\r\nTE: chunked\r\nx-own: 1\r\nX-Gate-Client: 10.0.0.1\r\n\
              x-gate-number: 1\r\nAuthorization: Bearer t\r\nExpect: 100-continue\r\n\
              Upgrade: h2c\r\nProxy-Connection: close\r\nTrailer: a\r\nContent-Length: 003\r\n\
              Proxy-Authorization: p\r\nCookie: a=\xc3\xa4\r\nX-Forwarded-For: 1.1.1.1\r\n\r\n",
        );
        assert_eq!(
            text,
            "POST /a?b=1 HTTP/1.1\r\nAuthorization: Bearer t\r\n\
             X-Gate-Client: 2001:db8::/64\r\nX-Gate-Number: 7\r\nX-Gate-Way: \r\n\
             Content-Length: 3\r\n\r\n"
        );
        let text = passed_on(b"GET / HTTP/1.1\r\nhost: x\r\nCookie: a=b\r\n\r\n");
        assert_eq!(
            text,
            "GET / HTTP/1.1\r\nX-Gate-Client: 2001:db8::/64\r\nX-Gate-Number: 7\r\nX-Gate-Way: \r\n\r\n"
        );
    }

    #[test]
    fn some_fields_are_passed_on_where_they_are_asked_for_and_nowhere_else() {
        let fields = "X-Hub-Signature-256: sha256=00\r\nx-gitlab-TOKEN: t\r\n";
        let request = |target: &str| {
            passed_on(
                format!("POST {target} HTTP/1.1\r\nHost: x\r\n{fields}X-Other: 1\r\n\r\n")
                    .as_bytes(),
            )
        };
        let hook = request("/api/hooks/aaaaaaaaaa");
        assert!(hook.contains(fields) && !hook.contains("X-Other"), "{hook}");
        for elsewhere in ["/api/apps", "/api/hooks", "/x/api/hooks/a"] {
            assert!(!request(elsewhere).contains("Hub"), "{elsewhere}");
        }
    }
}
