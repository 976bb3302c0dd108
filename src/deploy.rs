//! The pipeline from a repository to a running app.

mod detect;
mod files;
mod machine;
mod sandbox;
