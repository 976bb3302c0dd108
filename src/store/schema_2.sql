-- From version 1 to version 2.

-- Limits; 0 is the platform's default.
ALTER TABLE apps ADD COLUMN memory_mb INTEGER NOT NULL DEFAULT 0;
ALTER TABLE apps ADD COLUMN cpu_percent INTEGER NOT NULL DEFAULT 0;
ALTER TABLE apps ADD COLUMN max_processes INTEGER NOT NULL DEFAULT 0;
-- Directories, separated by line ends.
ALTER TABLE apps ADD COLUMN host_sockets TEXT NOT NULL DEFAULT '';
ALTER TABLE apps ADD COLUMN auto_deploy INTEGER NOT NULL DEFAULT 1;
-- An envelope made by the vault.
ALTER TABLE apps ADD COLUMN webhook_secret TEXT;
-- Whether the live release is files that the router serves, and no process.
ALTER TABLE apps ADD COLUMN is_static INTEGER NOT NULL DEFAULT 0;
-- The deploy whose release this one uses: a rollback. NULL: its own.
ALTER TABLE deploys ADD COLUMN release TEXT;

-- Processes whose place another one has taken and which may finish their answers, the
-- oldest first; (pid, start_ticks) names one beyond pid reuse.
CREATE TABLE draining (
    seq         INTEGER PRIMARY KEY,
    app_id      TEXT NOT NULL REFERENCES apps (id) ON DELETE CASCADE,
    pid         INTEGER NOT NULL,
    start_ticks INTEGER NOT NULL,
    port        INTEGER NOT NULL,
    UNIQUE (pid, start_ticks)
) STRICT;
CREATE INDEX draining_of_app ON draining (app_id);

-- Host names besides the one that follows from the app's name.
CREATE TABLE domains (
    domain   TEXT PRIMARY KEY,
    app_id   TEXT NOT NULL REFERENCES apps (id) ON DELETE CASCADE,
    position INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX domains_of_app ON domains (app_id, position);

-- Deliveries of webhooks that were taken, so that a replayed one does nothing.
CREATE TABLE hook_deliveries (
    seq         INTEGER PRIMARY KEY,
    app_id      TEXT NOT NULL REFERENCES apps (id) ON DELETE CASCADE,
    delivery    TEXT NOT NULL,
    UNIQUE (app_id, delivery)
) STRICT;

-- Secrets that an app had, as envelopes: what it printed may still hold them.
CREATE TABLE replaced_secrets (
    seq    INTEGER PRIMARY KEY,
    app_id TEXT NOT NULL REFERENCES apps (id) ON DELETE CASCADE,
    value  TEXT NOT NULL
) STRICT;
CREATE INDEX replaced_of_app ON replaced_secrets (app_id, seq);
