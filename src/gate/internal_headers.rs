//! The header fields that the gate tells the handler things by. No client can send one: only
//! fields that the handler looks at are passed on.

/// Whom a request comes from.
pub const CLIENT: &str = "X-Gate-Client";
/// The number of a request, by which it is answered ([`super::Completions::answer`]).
pub const NUMBER: &str = "X-Gate-Number";
