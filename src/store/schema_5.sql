-- From version 4 to version 5.

-- The processes of an app's live release that have no port, by the name that its repository
-- gives them and a number from 1; (pid, start_ticks) names one beyond pid reuse.
CREATE TABLE workers (
    app_id      TEXT NOT NULL REFERENCES apps (id) ON DELETE CASCADE,
    name        TEXT NOT NULL,
    number      INTEGER NOT NULL,
    deploy_id   TEXT NOT NULL,
    pid         INTEGER NOT NULL,
    start_ticks INTEGER NOT NULL,
    PRIMARY KEY (app_id, name, number)
) STRICT, WITHOUT ROWID;

-- Commands that ran once in an app's place: a job's, which is named then, or one of the owner's.
-- What it was is not kept: an owner may have typed a secret.
CREATE TABLE runs (
    seq         INTEGER PRIMARY KEY AUTOINCREMENT,
    id          TEXT NOT NULL UNIQUE,
    app_id      TEXT NOT NULL REFERENCES apps (id) ON DELETE CASCADE,
    job         TEXT,
    started_at  INTEGER NOT NULL,
    finished_at INTEGER,
    -- How it ended, such as `exit code 0`.
    result      TEXT
) STRICT;
CREATE INDEX runs_of_app ON runs (app_id, job, seq);
