-- Release 1 of the tables. All times are microseconds since the Unix epoch unless said otherwise.

-- The server's clock. Unlike now(), it goes on within a transaction.
CREATE FUNCTION clock_us() RETURNS bigint LANGUAGE sql VOLATILE AS
    $$ SELECT (extract(epoch FROM pg_catalog.clock_timestamp()) * 1000000)::bigint $$;

-- One row. Whoever puts older contents into the tables by hand sets another generation: then the stores
-- know that something may be missing.
CREATE TABLE meta (
    id integer PRIMARY KEY CHECK (id = 1),
    version integer NOT NULL,
    generation bigint NOT NULL
);
INSERT INTO meta (id, version, generation) VALUES (1, 1, (random() * 1e15)::bigint);

CREATE TABLE spaces (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL UNIQUE,
    -- Of the stores' secret; null until a store has opened the space.
    "check" bigint,
    -- Every row since then is here.
    complete_since bigint NOT NULL,
    -- The server and the tables that this was said of.
    incarnation bigint NOT NULL,
    -- The number of the newest entry in forgotten. Its lock gives numbers in the order of commits.
    forgotten bigint NOT NULL DEFAULT 0
);

-- One row a digest, unique over space and digest.
CREATE TABLE rows (
    space integer NOT NULL,
    digest bytea NOT NULL,
    -- 0 cancelled (counts as absent), 1 marked, 2 claimed.
    state smallint NOT NULL,
    token bytea NOT NULL,
    fence bigint NOT NULL,
    -- When it was marked.
    seen bigint NOT NULL,
    -- From then on others may have it: the end of the mark, or of the claim's lease.
    live_until bigint NOT NULL,
    -- From then on it may be deleted.
    expires bigint NOT NULL,
    value bytea NOT NULL,
    PRIMARY KEY (space, digest)
) WITH (autovacuum_vacuum_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.05);
CREATE INDEX rows_expires ON rows (expires);

CREATE TABLE forgotten (
    space integer NOT NULL,
    number bigint NOT NULL,
    expires bigint NOT NULL,
    digest bytea NOT NULL,
    PRIMARY KEY (space, number)
);
CREATE INDEX forgotten_expires ON forgotten (expires);

CREATE TABLE owners (
    space integer PRIMARY KEY,
    epoch bigint NOT NULL,
    holder bytea NOT NULL,
    last bytea,
    last_released boolean NOT NULL,
    lease_until bigint NOT NULL,
    released boolean NOT NULL,
    position bigint NOT NULL,
    -- These two in nanoseconds.
    complete_since bigint NOT NULL,
    complete_through bigint NOT NULL,
    layout bigint NOT NULL
);

-- Packed digests of stores that own their space, written once, never changed. A partition has the
-- slices that begin within one hour, and is dropped when all of it is over.
CREATE TABLE chunks (
    space integer NOT NULL,
    -- When the slice begins, in milliseconds.
    slice bigint NOT NULL,
    part integer NOT NULL,
    number bigint NOT NULL,
    expires bigint NOT NULL,
    data bytea NOT NULL,
    PRIMARY KEY (space, slice, part, number)
) PARTITION BY RANGE (slice);
-- It has no use for compression, and its length is asked for without reading it.
ALTER TABLE chunks ALTER COLUMN data SET STORAGE EXTERNAL;
CREATE INDEX chunks_expires ON chunks (expires);
-- For clients that may not make partitions: what is over in there is deleted row by row.
CREATE TABLE chunks_other PARTITION OF chunks DEFAULT;
