-- Release 1 of the tables. All times are microseconds since the Unix epoch unless said otherwise.

-- One row. Whoever puts older contents into the file by hand sets another generation: then the stores
-- know that something may be missing.
CREATE TABLE onceonly_meta (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    version INTEGER NOT NULL,
    generation INTEGER NOT NULL
) STRICT;
INSERT INTO onceonly_meta (id, version, generation) VALUES (1, 1, random());

CREATE TABLE onceonly_spaces (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    -- Of the stores' secret; null until a store has opened the space.
    "check" INTEGER,
    -- Every row since then is here.
    complete_since INTEGER NOT NULL,
    -- The file that this was said of.
    incarnation INTEGER NOT NULL,
    -- The number of the newest entry in onceonly_forgotten.
    forgotten INTEGER NOT NULL DEFAULT 0
) STRICT;

-- One row a digest, unique over space and digest.
CREATE TABLE onceonly_rows (
    space INTEGER NOT NULL,
    digest BLOB NOT NULL,
    -- 0 cancelled (counts as absent), 1 marked, 2 claimed.
    state INTEGER NOT NULL,
    token BLOB NOT NULL,
    fence INTEGER NOT NULL,
    -- When it was marked.
    seen INTEGER NOT NULL,
    -- From then on others may have it: the end of the mark, or of the claim's lease.
    live_until INTEGER NOT NULL,
    -- From then on it may be deleted.
    expires INTEGER NOT NULL,
    value BLOB NOT NULL,
    PRIMARY KEY (space, digest)
) STRICT, WITHOUT ROWID;
CREATE INDEX onceonly_rows_expires ON onceonly_rows (expires);

CREATE TABLE onceonly_forgotten (
    space INTEGER NOT NULL,
    number INTEGER NOT NULL,
    expires INTEGER NOT NULL,
    digest BLOB NOT NULL,
    PRIMARY KEY (space, number)
) STRICT, WITHOUT ROWID;
CREATE INDEX onceonly_forgotten_expires ON onceonly_forgotten (expires);

CREATE TABLE onceonly_owners (
    space INTEGER PRIMARY KEY,
    epoch INTEGER NOT NULL,
    holder BLOB NOT NULL,
    last BLOB,
    last_released INTEGER NOT NULL,
    lease_until INTEGER NOT NULL,
    released INTEGER NOT NULL,
    position INTEGER NOT NULL,
    -- These two in nanoseconds.
    complete_since INTEGER NOT NULL,
    complete_through INTEGER NOT NULL,
    layout INTEGER NOT NULL
) STRICT;

-- Packed digests of stores that own their space. Written once, never changed.
CREATE TABLE onceonly_chunks (
    id INTEGER PRIMARY KEY,
    space INTEGER NOT NULL,
    -- In milliseconds.
    slice INTEGER NOT NULL,
    part INTEGER NOT NULL,
    number INTEGER NOT NULL,
    expires INTEGER NOT NULL,
    data BLOB NOT NULL,
    UNIQUE (space, slice, part, number)
) STRICT;
CREATE INDEX onceonly_chunks_expires ON onceonly_chunks (expires);
