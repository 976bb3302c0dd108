-- Version 1. Times are milliseconds since 1970 UTC. Columns that hold secrets
-- (apps.git_token, env.value, settings.value of the GitHub token) hold envelopes
-- made by the vault, never clear text.

CREATE TABLE meta (
    name  TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE apps (
    id                     TEXT PRIMARY KEY,
    name                   TEXT NOT NULL UNIQUE,
    -- A small number of its own for each app, reused after a removal: host uids follow from it.
    slot                   INTEGER NOT NULL UNIQUE CHECK (slot BETWEEN 0 AND 59999),
    git_repo               TEXT NOT NULL,
    branch                 TEXT NOT NULL,
    git_token              TEXT,
    root_dir               TEXT NOT NULL,
    build_command          TEXT NOT NULL,
    start_command          TEXT NOT NULL,
    health_path            TEXT NOT NULL,
    health_timeout_seconds INTEGER NOT NULL,
    wanted                 TEXT NOT NULL,
    live_deploy            TEXT,
    created_at             INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE env (
    app_id   TEXT NOT NULL REFERENCES apps (id) ON DELETE CASCADE,
    name     TEXT NOT NULL,
    value    TEXT NOT NULL,
    secret   INTEGER NOT NULL,
    position INTEGER NOT NULL,
    PRIMARY KEY (app_id, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE deploys (
    seq            INTEGER PRIMARY KEY AUTOINCREMENT,
    id             TEXT NOT NULL UNIQUE,
    app_id         TEXT NOT NULL REFERENCES apps (id) ON DELETE CASCADE,
    status         TEXT NOT NULL,
    trigger        TEXT NOT NULL,
    commit_hash    TEXT,
    commit_message TEXT,
    error          TEXT,
    created_at     INTEGER NOT NULL,
    started_at     INTEGER,
    finished_at    INTEGER
) STRICT;
CREATE INDEX deploys_of_app ON deploys (app_id, seq, status);
CREATE INDEX deploys_unfinished ON deploys (status, seq) WHERE status NOT IN ('live', 'failed');

-- The process of an app's live release; (pid, start_ticks) names it beyond pid reuse.
CREATE TABLE processes (
    app_id      TEXT PRIMARY KEY REFERENCES apps (id) ON DELETE CASCADE,
    deploy_id   TEXT NOT NULL,
    pid         INTEGER NOT NULL,
    start_ticks INTEGER NOT NULL,
    port        INTEGER NOT NULL,
    ended       TEXT
) STRICT, WITHOUT ROWID;

CREATE TABLE settings (
    name     TEXT PRIMARY KEY,
    value    TEXT NOT NULL,
    saved_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
