//! Tests that drive the compiled binary, one file a chapter of the promises; each is named by the sentence it proves.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on should say where it stopped"
)]

mod harness;

mod harness_proof;
mod tidy;
