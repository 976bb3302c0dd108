//! Files of apps: where each of them is ([`layout`]), safe ways through what an app has put there
//! ([`tree`]), whose they are ([`app_users`], by a range of
//! [`subuid`]s), how much room there is ([`space`]), what builds may
//! keep of it ([`build_cache`]), what releases have in common ([`shared_files`]), and what goes
//! first when there is none ([`emergency_cleanup`]).

pub mod app_users;
pub mod build_cache;
pub mod emergency_cleanup;
pub mod layout;
pub mod removal;
pub mod shared_files;
pub mod space;
pub mod subuid;
pub mod tree;
