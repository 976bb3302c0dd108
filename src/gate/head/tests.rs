//! Tests of the judgement on request heads (P22).

use super::*;
use proptest::prelude::*;

const MAX_BODY: usize = 1024 * 1024;

/// What scan and judgement say about a text: the refusal's status, or what passed.
fn verdict(bytes: &[u8]) -> Result<(usize, bool, bool, bool), u16> {
    let mut room = NO_FIELDS;
    let length = Scan::default().advance(bytes).map_err(|r| r.status)?.ok_or(0_u16)?;
    let head = judge(&bytes[..length], &mut room, MAX_BODY).map_err(|r| r.status)?;
    Ok((head.length, head.keep_alive, head.expects_continue, head.websocket))
}

fn get(fields: &str) -> Result<(usize, bool, bool, bool), u16> {
    verdict(format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n").as_bytes())
}

#[test]
fn an_ordinary_request_passes() {
    assert_eq!(get(""), Ok((0, true, false, false)));
    assert_eq!(get("Content-Length: 0\r\n"), Ok((0, true, false, false)));
    assert_eq!(get("Content-Length: 1048576\r\nExpect: 100-Continue\r\n").unwrap().0, 1 << 20);
    assert_eq!(get("Connection: close\r\n"), Ok((0, false, false, false)));
    assert_eq!(get("Connection: keep-alive, Close\r\n"), Ok((0, false, false, false)));
    assert_eq!(get("X-Empty:\r\nX-Tab:\ta\tb \r\n"), Ok((0, true, false, false)));
    assert_eq!(get("Cookie: name=\u{fc}\r\n"), Ok((0, true, false, false)));
    // One empty line before it is forgiven.
    assert!(verdict(b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n").is_ok());
    let ten = |fields: &str| verdict(format!("GET / HTTP/1.0\r\n{fields}\r\n").as_bytes());
    assert_eq!(ten(""), Ok((0, false, false, false)));
    assert_eq!(ten("Connection: Keep-Alive\r\n"), Ok((0, true, false, false)));
    assert_eq!(ten("Expect: 100-continue\r\n"), Ok((0, false, false, false)));
    for host in ["a.example:80", "[::1]:8080", "127.0.0.1", "x_y", "a%20b"] {
        let text = format!("PURGE /a?b&c=%00 HTTP/1.1\r\nhOST: {host}\r\n\r\n");
        assert!(verdict(text.as_bytes()).is_ok(), "{host}");
    }
}

#[test]
fn only_a_get_that_asks_for_a_websocket_over_http_1_1_is_a_handshake() {
    let fields = "Connection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n";
    assert!(get(fields).unwrap().3);
    assert!(!get("Upgrade: websocket\r\n").unwrap().3);
    assert!(!get("Connection: upgrade\r\nUpgrade: h2c\r\n").unwrap().3);
    for line in ["POST / HTTP/1.1", "GET / HTTP/1.0"] {
        let text = format!("{line}\r\nHost: a\r\n{fields}\r\n");
        assert!(!verdict(text.as_bytes()).unwrap().3, "{line}");
    }
    assert_eq!(get(&format!("{fields}Content-Length: 1\r\n")), Err(400));
}

#[test]
fn bytes_that_are_no_http_1_get_400() {
    for bad in [
        "GET / HTTP/1.1\nHost: a\n\n",
        "GET / HTTP/1.1\r\nHost: a\r\nA: b\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nA: b\r\n c\r\n\r\n",
        "GET / HTTP/1.1\r\n Host: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost\t: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nA: \0\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nA: b\rc\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nA: \u{7f}\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nA: \u{e4}\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer \u{e4}\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n(a): b\r\n\r\n",
        "GET / HTTP/1.2\r\nHost: a\r\n\r\n",
        "GET / HTTP/2.0\r\nHost: a\r\n\r\n",
        "GET / http/1.1\r\nHost: a\r\n\r\n",
        "GET /\r\n\r\n",
        "GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /  HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n",
        "G\u{e4}T / HTTP/1.1\r\nHost: a\r\n\r\n",
        " GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "\u{16}\u{3}\u{1}\u{2}",
        "\0",
    ] {
        assert_eq!(verdict(bad.as_bytes()), Err(400), "{bad:?}");
    }
}

#[test]
fn a_length_that_can_be_read_in_two_ways_gets_400_and_a_large_one_413() {
    for bad in ["", "-1", "+1", "1x", "0x1", "1 1", "1,1", "1.0", "00000000000000000001", "\u{663}"]
    {
        assert_eq!(get(&format!("Content-Length: {bad}\r\n")), Err(400), "{bad:?}");
    }
    assert_eq!(get("Content-Length: 1\r\ncontent-length: 1\r\n"), Err(400));
    assert_eq!(get("Content-Length: 1048577\r\n"), Err(413));
    assert_eq!(get("Content-Length: 9999999999999999999\r\n"), Err(413));
    assert_eq!(get("Content-Length: 0000000000000000007\r\n").unwrap().0, 7);
}

#[test]
fn a_transfer_encoding_gets_411_whatever_it_says() {
    for value in ["chunked", "identity", "gzip, chunked", "", "xchunked", "\tchunked"] {
        let field = format!("Transfer-Encoding: {value}\r\n");
        assert_eq!(get(&field), Err(411), "{value}");
        assert_eq!(get(&format!("Content-Length: 5\r\n{field}")), Err(411), "{value}");
        assert_eq!(get(&format!("{field}transfer-encoding: x\r\n")), Err(411), "{value}");
    }
}

#[test]
fn an_expectation_that_nobody_can_meet_gets_417() {
    assert_eq!(get("Expect: 200-ok\r\n"), Err(417));
    assert_eq!(get("Expect: 100-continue\r\nExpect: other\r\n"), Err(417));
    assert_eq!(get("Expect: 100-continue\r\n"), Ok((0, true, true, false)));
}

#[test]
fn a_request_without_one_good_host_gets_400() {
    for hosts in [
        "",
        "Host: a\r\nHost: a\r\n",
        "Host:\r\n",
        "Host: a b\r\n",
        "Host: a,b\r\n",
        "Host: a/b\r\n",
        "Host: a@b\r\n",
        "Host: \u{e4}\r\n",
    ] {
        let text = format!("GET / HTTP/1.1\r\n{hosts}\r\n");
        assert_eq!(verdict(text.as_bytes()), Err(400), "{hosts:?}");
    }
    assert_eq!(verdict(b"GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n"), Err(400));
}

#[test]
fn a_target_that_is_no_path_gets_400_and_trace_and_connect_405() {
    for (line, status) in [
        ("GET http://a/", 400),
        ("OPTIONS *", 400),
        ("GET *", 400),
        ("GET a", 400),
        ("GET /#a", 400),
        ("GET /\u{e4}", 400),
        ("CONNECT a:80", 405),
        ("CONNECT /", 405),
        ("TRACE /", 405),
        ("TRACE http://a/", 405),
    ] {
        let text = format!("{line} HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(verdict(text.as_bytes()), Err(status), "{line}");
    }
    assert!(verdict(b"OPTIONS / HTTP/1.1\r\nHost: a\r\n\r\n").is_ok());
}

#[test]
fn what_is_too_large_is_refused_before_it_is_whole() {
    let long = |n: usize| format!("/{}", "a".repeat(n - 1));
    let line = |n: usize| format!("GET {} HTTP/1.1\r\nHost: a\r\n\r\n", long(n));
    assert!(verdict(line(MAX_TARGET).as_bytes()).is_ok());
    assert_eq!(verdict(line(MAX_TARGET + 1).as_bytes()), Err(414));
    assert_eq!(verdict(format!("GET {}", long(MAX_TARGET + 100)).as_bytes()), Err(414));

    let with = |n: usize| get(&"A: b\r\n".repeat(n));
    assert!(with(MAX_FIELDS - 1).is_ok());
    assert_eq!(with(MAX_FIELDS), Err(431));
    let open = format!("GET / HTTP/1.1\r\n{}", "A: b\r\n".repeat(MAX_FIELDS + 1));
    assert_eq!(verdict(open.as_bytes()), Err(431));

    let padded = |n: usize| format!("GET / HTTP/1.1\r\nHost: a\r\nA: {}\r\n\r\n", "b".repeat(n));
    let rest = padded(0).len();
    assert!(verdict(padded(MAX_HEAD - rest).as_bytes()).is_ok());
    assert_eq!(verdict(padded(MAX_HEAD - rest + 1).as_bytes()), Err(431));
    let open = format!("GET / HTTP/1.1\r\nA: {}", "b".repeat(MAX_HEAD));
    assert_eq!(verdict(open.as_bytes()), Err(431));
    assert_eq!(get(&format!("Connection: {}\r\n", "a,".repeat(17))), Err(400));
}

/// Pieces that smuggling attempts are made of.
fn piece() -> impl Strategy<Value = Vec<u8>> {
    let known = prop::sample::select(vec![
        "GET / HTTP/1.1\r\n",
        "POST /a HTTP/1.1\r\n",
        "HEAD / HTTP/1.0\r\n",
        "\r\n",
        "\n",
        "\r",
        "Host: a\r\n",
        "Host: b\n",
        "Content-Length: 5\r\n",
        "content-length: 6\r\n",
        "Content-Length : 7\r\n",
        "Content-Length: +5\r\n",
        "Content-Length:\r\n 5\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Transfer-Encoding\t: chunked\r\n",
        "Transfer-Encoding: identity\r\n",
        "X: y\r\n",
        " folded\r\n",
        "\0",
        "\t",
        ": ",
        "Connection: close, content-length\r\n",
        "Expect: 100-continue\r\n",
        "0\r\n\r\n",
        "Upgrade: websocket\r\n",
        "Connection: upgrade\r\n",
        "X-Gate-Client: 1.1.1.1\r\n",
    ]);
    prop_oneof![
        6 => known.prop_map(|text| text.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..6),
    ]
}

fn hostile() -> impl Strategy<Value = Vec<u8>> {
    let pieces = prop::collection::vec(piece(), 0..12).prop_map(|p| p.concat());
    let started = pieces.prop_map(|p| [b"GET / HTTP/1.1\r\nHost: a\r\n".as_slice(), &p].concat());
    prop_oneof![
        3 => started,
        2 => prop::collection::vec(piece(), 0..12).prop_map(|p| p.concat()),
        1 => prop::collection::vec(any::<u8>(), 0..300),
    ]
}

/// Counts the lines of a head that any lenient reader could take for this field.
fn lenient_count(head: &[u8], name: &str) -> usize {
    head.split(|&b| b == b'\n' || b == b'\r')
        .filter(|line| {
            let text = String::from_utf8_lossy(line).to_ascii_lowercase();
            text.split_once(':').is_some_and(|(n, _)| n.trim() == name)
        })
        .count()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..Default::default() })]

    #[test]
    fn hostile_bytes_never_panic_and_what_passes_has_one_framing(bytes in hostile()) {
        if let Ok(Some(end)) = Scan::default().advance(&bytes) {
            let head = &bytes[..end];
            let mut room = NO_FIELDS;
            if let Ok(judged) = judge(head, &mut room, MAX_BODY) {
                prop_assert!(head.ends_with(b"\r\n\r\n"));
                prop_assert_eq!(lenient_count(head, "transfer-encoding"), 0);
                let lengths = lenient_count(head, "content-length");
                prop_assert!(lengths <= 1);
                prop_assert!(judged.length == 0 || lengths == 1);
                prop_assert!(lenient_count(head, "host") <= 1);
                prop_assert!(!head.contains(&0));
            }
        }
    }

    #[test]
    fn what_is_passed_on_means_the_same_as_what_came(bytes in hostile()) {
        let mut room = NO_FIELDS;
        let Ok(Some(end)) = Scan::default().advance(&bytes) else { return Ok(()) };
        let Ok(judged) = judge(&bytes[..end], &mut room, MAX_BODY) else { return Ok(()) };
        let client = crate::model::Client::parse("192.0.2.1").unwrap();
        let source = crate::gate::client::Source { client, trusted_proxy: false, https: false, plain: false, unheeded: false };
        let mut out = Vec::new();
        let also = crate::gate::Also::default();
        crate::gate::rewrite::request(&judged, &source, 7, &also, &mut out);
        prop_assert_eq!(Scan::default().advance(&out), Ok(Some(out.len())));
        prop_assert_eq!(lenient_count(&out, "x-gate-client"), 1);
        let mut again = NO_FIELDS;
        let mut request = httparse::Request::new(&mut again);
        prop_assert!(request.parse(&out).is_ok_and(|s| s.is_complete()));
        prop_assert_eq!(
            lenient_count(&out, "content-length"),
            values(request.headers, "content-length").count()
        );
        let length = content_length(values(request.headers, "content-length"), MAX_BODY);
        prop_assert_eq!(length, Ok(judged.length));
    }

    #[test]
    fn it_does_not_matter_in_which_pieces_a_head_arrives(bytes in hostile(), cut in 0_usize..300) {
        let whole = Scan::default().advance(&bytes);
        let mut scan = Scan::default();
        let cut = cut.min(bytes.len());
        let in_two = match scan.advance(&bytes[..cut]) {
            Ok(None) => scan.advance(&bytes),
            early => early,
        };
        prop_assert_eq!(in_two, whole);
    }
}
