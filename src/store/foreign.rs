//! The database of the platform that this one grew out of, which `server import` reads. Nothing
//! in it is trusted: it is opened read-only, without what could run by itself, and each value is
//! a text until it has gone through one of our own types.

use super::StoreError;
use super::columns::rows;
use rusqlite::config::DbConfig;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags, Row};
use std::collections::BTreeMap;
use std::path::Path;

/// Bytes of a value that is read; real ones are far shorter.
const LONGEST: usize = 1 << 20;

/// Rows of a table that are read.
const MOST: usize = 10_000;

/// A row: each column's text, but for those that have none.
pub type ForeignRow = BTreeMap<String, String>;

/// All rows of each of these tables, by the table's name; none of one that is not there, for
/// earlier versions had fewer.
///
/// # Errors
/// When it is no such database, is damaged, has triggers or views, or more than is read.
pub fn foreign_rows<const N: usize>(
    path: &Path,
    tables: [&str; N],
) -> Result<[Vec<ForeignRow>; N], StoreError> {
    let refused =
        |why: &str| StoreError::Sentence(format!("this is no database to move in: {why}"));
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    let sql = "SELECT type, name FROM sqlite_schema";
    let schema: Vec<(String, String)> =
        rows(&connection, sql, [], |row| Ok((row.get(0)?, row.get(1)?)))?;
    if schema.iter().any(|(kind, _)| kind == "trigger" || kind == "view") {
        return Err(refused("it has triggers or views"));
    }
    if !schema.iter().any(|(kind, name)| kind == "table" && name == "apps") {
        return Err(refused("it has no table of apps"));
    }
    let mut found = [const { Vec::new() }; N];
    for (table, rows_of) in tables.iter().zip(&mut found) {
        if schema.iter().any(|(_, name)| name == table) {
            let sql = format!("SELECT * FROM {table} ORDER BY rowid LIMIT {MOST} + 1");
            *rows_of = rows(&connection, &sql, [], read)?;
            if rows_of.len() > MOST {
                return Err(refused(&format!("{table} has more than {MOST} rows")));
            }
        }
    }
    Ok(found)
}

fn read(row: &Row<'_>) -> Result<ForeignRow, StoreError> {
    let mut texts = ForeignRow::new();
    for (at, name) in row.as_ref().column_names().enumerate() {
        let text = match row.get_ref(at)? {
            ValueRef::Null => continue,
            ValueRef::Text(text) | ValueRef::Blob(text) if text.len() > LONGEST => {
                let why =
                    format!("a value of {name} is longer than 1 MiB; shorten it, or empty it");
                return Err(StoreError::Sentence(why));
            }
            ValueRef::Text(text) | ValueRef::Blob(text) => {
                String::from_utf8_lossy(text).into_owned()
            }
            ValueRef::Integer(number) => number.to_string(),
            ValueRef::Real(number) => number.to_string(),
        };
        texts.insert(name.to_owned(), text);
    }
    Ok(texts)
}
