//! The header fields that the gate and the handler tell each other things by. No client
//! can send one, and none leaves the house.

/// Whom a request comes from.
pub const CLIENT: &str = "X-Gate-Client";
/// `1` when the client's own connection is encrypted.
pub const SECURE: &str = "X-Gate-Secure";
/// `1` in the answer to a client that has proved the token.
pub const PROVED: &str = "X-Gate-Proved";
/// In an answer: its body is the content of the file with this path, in hexadecimal.
pub const FILE: &str = "X-Gate-File";
/// In an answer: its body is made by a worker, by this name of it ([`super::Generate`]).
pub const GENERATED: &str = "X-Gate-Generated";

/// What all of them begin with.
const PREFIX: &[u8] = b"X-Gate-";

/// Whether a field has the name of one.
pub(super) fn is_own(name: &str) -> bool {
    let beginning = name.as_bytes().get(..PREFIX.len());
    beginning.is_some_and(|beginning| beginning.eq_ignore_ascii_case(PREFIX))
}
