-- Release 1 of the tables. All times are microseconds since the Unix epoch unless said otherwise.

CREATE TABLE IF NOT EXISTS onceonly_spaces (
    -- FNV-1a of the name: the same wherever the space is made anew.
    id BIGINT PRIMARY KEY,
    name VARBINARY(1024) NOT NULL,
    -- Of the stores' secret; null until a store has opened the space.
    `check` BIGINT,
    -- Every row since then is here.
    complete_since BIGINT NOT NULL,
    -- The server and the tables that this was said of.
    incarnation BIGINT NOT NULL,
    -- The number of the newest entry in onceonly_forgotten. Its lock gives numbers in the order of commits.
    forgotten BIGINT NOT NULL DEFAULT 0
) ENGINE = InnoDB;

-- One row a digest, unique over space and digest.
CREATE TABLE IF NOT EXISTS onceonly_rows (
    space BIGINT NOT NULL,
    digest BINARY(16) NOT NULL,
    -- 0 cancelled (counts as absent), 1 marked, 2 claimed.
    state TINYINT NOT NULL,
    token BINARY(16) NOT NULL,
    fence BIGINT NOT NULL,
    -- When it was marked.
    seen BIGINT NOT NULL,
    -- From then on others may have it: the end of the mark, or of the claim's lease.
    live_until BIGINT NOT NULL,
    -- From then on it may be deleted.
    expires BIGINT NOT NULL,
    value MEDIUMBLOB NOT NULL,
    PRIMARY KEY (space, digest),
    KEY onceonly_rows_expires (expires)
) ENGINE = InnoDB;

CREATE TABLE IF NOT EXISTS onceonly_forgotten (
    space BIGINT NOT NULL,
    number BIGINT NOT NULL,
    expires BIGINT NOT NULL,
    digest BINARY(16) NOT NULL,
    PRIMARY KEY (space, number),
    KEY onceonly_forgotten_expires (expires)
) ENGINE = InnoDB;

CREATE TABLE IF NOT EXISTS onceonly_owners (
    space BIGINT PRIMARY KEY,
    epoch BIGINT NOT NULL,
    holder BINARY(16) NOT NULL,
    last BINARY(16),
    last_released TINYINT NOT NULL,
    lease_until BIGINT NOT NULL,
    released TINYINT NOT NULL,
    position BIGINT NOT NULL,
    -- These two in nanoseconds.
    complete_since BIGINT NOT NULL,
    complete_through BIGINT NOT NULL,
    layout BIGINT NOT NULL
) ENGINE = InnoDB;

-- Packed digests of stores that own their space, written once, never changed. This table stays empty: for
-- each hour in which slices begin there is one like it, onceonly_chunks_<hours since 1970>, which is
-- dropped when all in it is over.
CREATE TABLE IF NOT EXISTS onceonly_chunks (
    space BIGINT NOT NULL,
    -- When the slice begins, in milliseconds.
    slice BIGINT NOT NULL,
    part INT NOT NULL,
    number BIGINT NOT NULL,
    expires BIGINT NOT NULL,
    -- The length of the data.
    bytes INT NOT NULL,
    data MEDIUMBLOB NOT NULL,
    PRIMARY KEY (space, slice, part, number),
    KEY onceonly_chunks_expires (expires)
) ENGINE = InnoDB;

-- Empty after each start of the server, so that one which may lose something at its start is noticed.
CREATE TABLE IF NOT EXISTS onceonly_boot (
    id INT PRIMARY KEY,
    number BIGINT NOT NULL
) ENGINE = MEMORY;

-- One row. Whoever puts older contents into the tables by hand sets another generation: then the stores
-- know that something may be missing. Made last: who finds it finds all of them.
CREATE TABLE IF NOT EXISTS onceonly_meta (
    id INT PRIMARY KEY,
    version INT NOT NULL,
    generation BIGINT NOT NULL
) ENGINE = InnoDB;
INSERT INTO onceonly_meta (id, version, generation) VALUES (1, 1, FLOOR(RAND() * 1e15))
    ON DUPLICATE KEY UPDATE id = id;
