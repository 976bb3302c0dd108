//! The database seen from outside: what is stored, and how to put something else there.

use super::server::{Server, Setup};
use aes_gcm::aead::{Aead, KeyInit};
use data_encoding::BASE64;
use rusqlite::Connection;
use serde_json::json;
use sha2::{Digest, Sha256};

/// A stopped server's database (or a running one's, to look at).
pub struct Database {
    connection: Connection,
    setup: Setup,
}

impl Database {
    /// The database that a server left.
    pub fn of(setup: Setup) -> Self {
        let file = setup.data().join("better-paas.db");
        Self { connection: Connection::open(file).expect("a database"), setup }
    }

    /// The database of a running server.
    pub fn beside(server: &Server) -> Self {
        Self::of(server.setup().clone())
    }

    /// How to start a server on it again.
    pub fn setup(&self) -> Setup {
        self.setup.clone()
    }

    /// Changes something by hand.
    #[track_caller]
    pub fn run(&self, sql: &str) {
        let changed = self.connection.execute(sql, []).expect(sql);
        assert!(changed > 0, "{sql} changed nothing");
    }

    #[track_caller]
    pub fn text(&self, sql: &str) -> String {
        self.connection.query_row(sql, [], |row| row.get(0)).expect(sql)
    }

    /// Every text in every table, with where it stands.
    pub fn texts(&self) -> Vec<(String, String)> {
        let names = |sql: &str| {
            let mut statement = self.connection.prepare(sql).expect("a statement");
            let names = statement.query_map([], |row| row.get::<_, String>(0)).expect("rows");
            names.collect::<Result<Vec<_>, _>>().expect("names")
        };
        let mut all = Vec::new();
        for table in names("SELECT name FROM sqlite_schema WHERE type = 'table'") {
            for column in names(&format!("SELECT name FROM pragma_table_info('{table}')")) {
                let sql = format!("SELECT {column} FROM {table} WHERE typeof({column}) = 'text'");
                let place = format!("{table}.{column}");
                all.extend(names(&sql).into_iter().map(|text| (place.clone(), text)));
            }
        }
        all
    }

    #[track_caller]
    pub fn git_token(&self, app: &str) -> String {
        self.text(&format!("SELECT git_token FROM apps WHERE id = '{app}'"))
    }

    #[track_caller]
    pub fn env(&self, app: &str, name: &str) -> String {
        self.text(&format!("SELECT value FROM env WHERE app_id = '{app}' AND name = '{name}'"))
    }

    #[track_caller]
    pub fn set_env(&self, app: &str, name: &str, value: &str) {
        self.run(&format!(
            "UPDATE env SET value = '{value}' WHERE app_id = '{app}' AND name = '{name}'"
        ));
    }
}

/// The id of a key, as envelopes name it.
pub fn key_id(key: &[u8; 32]) -> String {
    let digest = Sha256::new().chain_update(b"better-paas key id").chain_update(key).finalize();
    super::hex(&digest[..4])
}

/// An envelope of earlier installs: nonce, ciphertext and tag, nothing authenticated with them (P17).
pub fn forge_v1(key: &[u8; 32], clear: &str) -> String {
    let cipher = aes_gcm::Aes256Gcm::new(key.into());
    let nonce = super::random::<12>();
    let sealed = cipher.encrypt((&nonce).into(), clear.as_bytes()).expect("sealed");
    format!("enc:v1:{}", BASE64.encode(&[&nonce[..], &sealed].concat()))
}

/// Adds an app through the API; its id.
#[track_caller]
pub fn first_app(server: &Server, name: &str, token: Option<&str>) -> String {
    let mut app = json!({"name": name, "gitRepo": format!("https://git.example.com/{name}.git")});
    if let Some(token) = token {
        app["gitToken"] = token.into();
    }
    let answer = server.owner().post("/api/apps", &app).expect(201).json();
    answer["id"].as_str().expect("an id").to_owned()
}
