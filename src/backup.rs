//! Backups: an [`archive`] of the database and of each app's `/data` ([`app_data`]) is made while
//! everything runs ([`create`]), by the clock and proved each time ([`keeper`]), and put back by
//! [`restore`]. Neither the key nor the token is ever in one.

pub mod app_data;
pub mod archive;
pub mod create;
pub mod keeper;
pub mod restore;
