//! The pipeline from a repository to a running app.

mod machine;
mod sandbox;
