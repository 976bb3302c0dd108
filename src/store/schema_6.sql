-- From version 5 to version 6.

-- Acts that changed something, each a line of JSON; hash is the SHA-256 of the hash before it and
-- that line. What was pruned leaves its newest row as `{}`, which a later row names by its hash.
CREATE TABLE audit (
    seq  INTEGER PRIMARY KEY AUTOINCREMENT,
    act  TEXT NOT NULL,
    hash TEXT NOT NULL
) STRICT;
