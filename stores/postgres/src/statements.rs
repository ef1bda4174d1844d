//! The statements of rows, one a kind: each a transaction of its own, for many rows.
//!
//! Rows come in the order of their digests and are locked in it, so two calls do not wait for each
//! other in a circle. All run under READ COMMITTED: who waited for another transaction looks at the
//! row again that it left.
//!
//! Whoever marks or claims first looks at what is there, without locking it: most of what is asked
//! for twice is a duplicate, and that costs no write. Only what was absent is inserted, on the
//! condition that it still may be. A row that somebody else got in between is in neither result: it
//! is asked for again.

/// Live rows.
pub(crate) const LOOK: &str = "
SELECT i.ord, r.state, r.seen, r.live_until, n.us, r.value
FROM unnest($1::text[], $2::bytea[]) WITH ORDINALITY AS i (name, digest, ord)
JOIN spaces s ON s.name = i.name
JOIN rows r ON r.space = s.id AND r.digest = i.digest,
LATERAL (SELECT clock_us() AS us, r.digest) n
WHERE r.live_until > n.us";

/// For each row of a known space: `done`, or what is there, or neither.
pub(crate) const OBSERVE: &str = "
WITH input AS MATERIALIZED (
    SELECT i.*, s.id AS space
    FROM unnest($1::text[], $2::bytea[], $3::bytea[], $4::bigint[], $5::bytea[])
        WITH ORDINALITY AS i (name, digest, token, keep, value, ord)
    JOIN spaces s ON s.name = i.name
), found AS MATERIALIZED (
    SELECT i.ord, r.state, r.token = i.token AS own, r.seen, r.live_until, n.us, r.value
    FROM input i JOIN rows r ON r.space = i.space AND r.digest = i.digest,
    LATERAL (SELECT clock_us() AS us, r.digest) n
    WHERE r.live_until > n.us
), done AS (
    INSERT INTO rows AS r (space, digest, state, token, fence, seen, live_until, expires, value)
    SELECT t.space, t.digest, 1, t.token, 0, t.us, t.us + t.keep, t.us + t.keep, t.value
    FROM (
        SELECT i.*, clock_us() AS us FROM input i
        WHERE NOT EXISTS (SELECT FROM found f WHERE f.ord = i.ord)
        ORDER BY i.ord OFFSET 0
    ) t
    ON CONFLICT (space, digest) DO UPDATE SET state = 1, token = excluded.token,
        seen = excluded.seen, live_until = excluded.live_until, expires = excluded.expires,
        value = excluded.value
    WHERE r.live_until <= clock_us()
    RETURNING r.space, r.digest
)
SELECT i.ord, d.digest IS NOT NULL, f.state, f.own, f.seen, f.live_until, f.us, f.value
FROM input i LEFT JOIN found f ON f.ord = i.ord
LEFT JOIN done d ON d.space = i.space AND d.digest = i.digest";

/// As [`OBSERVE`]; an own claim is granted again, with the fence that it had.
pub(crate) const CLAIM: &str = "
WITH input AS MATERIALIZED (
    SELECT i.*, s.id AS space
    FROM unnest($1::text[], $2::bytea[], $3::bytea[], $4::bigint[], $5::bigint[], $6::bytea[])
        WITH ORDINALITY AS i (name, digest, token, lease, keep, value, ord)
    JOIN spaces s ON s.name = i.name
), found AS MATERIALIZED (
    SELECT i.ord, r.state, r.seen, r.live_until, n.us, r.value
    FROM input i JOIN rows r ON r.space = i.space AND r.digest = i.digest,
    LATERAL (SELECT clock_us() AS us, r.digest) n
    WHERE r.live_until > n.us AND NOT (r.state = 2 AND r.token = i.token)
), done AS (
    INSERT INTO rows AS r (space, digest, state, token, fence, seen, live_until, expires, value)
    SELECT t.space, t.digest, 2, t.token, t.us, 0, t.us + t.lease, t.us + t.lease + t.keep, t.value
    FROM (
        SELECT i.*, clock_us() AS us FROM input i
        WHERE NOT EXISTS (SELECT FROM found f WHERE f.ord = i.ord)
        ORDER BY i.ord OFFSET 0
    ) t
    ON CONFLICT (space, digest) DO UPDATE SET state = 2, token = excluded.token,
        fence = CASE WHEN r.state = 2 AND r.token = excluded.token AND r.expires > clock_us()
            THEN r.fence ELSE greatest(excluded.fence, r.fence + 1) END,
        seen = 0, live_until = excluded.live_until, expires = excluded.expires,
        value = excluded.value
    WHERE r.live_until <= clock_us() OR r.state = 2 AND r.token = excluded.token
    RETURNING r.space, r.digest, r.fence
)
SELECT i.ord, d.fence, f.state, f.seen, f.live_until, f.us, f.value
FROM input i LEFT JOIN found f ON f.ord = i.ord
LEFT JOIN done d ON d.space = i.space AND d.digest = i.digest";

/// Takes over from an owner that is known to be dead; the rest are claims like others.
pub(crate) const CLAIM_AFTER: &str = "
WITH held AS MATERIALIZED (
    SELECT i.*, r.space, clock_us() AS us
    FROM unnest($1::text[], $2::bytea[], $3::bytea[], $4::bytea[], $5::bigint[], $6::bigint[],
        $7::bytea[]) WITH ORDINALITY AS i (name, digest, token, previous, lease, keep, value, ord)
    JOIN spaces s ON s.name = i.name
    JOIN rows r ON r.space = s.id AND r.digest = i.digest
    WHERE r.state = 2 AND r.token = i.previous AND r.expires > clock_us()
    ORDER BY i.ord FOR UPDATE OF r
)
UPDATE rows r SET token = h.token, fence = greatest(h.us, r.fence + 1), live_until = h.us + h.lease,
    expires = h.us + h.lease + h.keep, value = h.value
FROM held h WHERE r.space = h.space AND r.digest = h.digest
RETURNING h.ord, r.fence";

/// The rows that were refreshed.
pub(crate) const REFRESH: &str = "
WITH held AS MATERIALIZED (
    SELECT i.ord, i.digest, i.keep, r.space, clock_us() AS us
    FROM unnest($1::text[], $2::bytea[], $3::bigint[])
        WITH ORDINALITY AS i (name, digest, keep, ord)
    JOIN spaces s ON s.name = i.name
    JOIN rows r ON r.space = s.id AND r.digest = i.digest
    WHERE r.state = 1 AND r.live_until > clock_us()
    ORDER BY i.ord FOR UPDATE OF r
)
UPDATE rows r SET seen = h.us, live_until = h.us + h.keep, expires = h.us + h.keep
FROM held h WHERE r.space = h.space AND r.digest = h.digest
RETURNING h.ord";

/// The rows whose claim was renewed.
pub(crate) const RENEW: &str = "
WITH held AS MATERIALIZED (
    SELECT i.ord, i.digest, i.lease, i.keep, r.space, clock_us() AS us
    FROM unnest($1::text[], $2::bytea[], $3::bytea[], $4::bigint[], $5::bigint[])
        WITH ORDINALITY AS i (name, digest, token, lease, keep, ord)
    JOIN spaces s ON s.name = i.name
    JOIN rows r ON r.space = s.id AND r.digest = i.digest
    WHERE r.state = 2 AND r.token = i.token AND r.expires > clock_us()
    ORDER BY i.ord FOR UPDATE OF r
)
UPDATE rows r SET live_until = h.us + h.lease, expires = h.us + h.lease + h.keep
FROM held h WHERE r.space = h.space AND r.digest = h.digest
RETURNING h.ord";

/// The rows that are marked by their claim: from now on, or by a commit before.
pub(crate) const COMMIT: &str = "
WITH held AS MATERIALIZED (
    SELECT i.ord, i.digest, i.keep, i.value, r.space, r.state, clock_us() AS us
    FROM unnest($1::text[], $2::bytea[], $3::bytea[], $4::bigint[], $5::bytea[])
        WITH ORDINALITY AS i (name, digest, token, keep, value, ord)
    JOIN spaces s ON s.name = i.name
    JOIN rows r ON r.space = s.id AND r.digest = i.digest
    WHERE r.state IN (1, 2) AND r.token = i.token AND r.expires > clock_us()
    ORDER BY i.ord FOR UPDATE OF r
), done AS (
    UPDATE rows r SET state = 1, seen = h.us, live_until = h.us + h.keep, expires = h.us + h.keep,
        value = CASE WHEN length(h.value) > 0 THEN h.value ELSE r.value END
    FROM held h WHERE r.space = h.space AND r.digest = h.digest AND h.state = 2
)
SELECT ord FROM held";

/// The rows that were the token's.
pub(crate) const ABANDON: &str = r"
WITH held AS MATERIALIZED (
    SELECT i.ord, i.digest, r.space
    FROM unnest($1::text[], $2::bytea[], $3::bytea[])
        WITH ORDINALITY AS i (name, digest, token, ord)
    JOIN spaces s ON s.name = i.name
    JOIN rows r ON r.space = s.id AND r.digest = i.digest
    WHERE r.state <> 0 AND r.token = i.token
    ORDER BY i.ord FOR UPDATE OF r
)
UPDATE rows r SET state = 0, live_until = 0, expires = clock_us(), value = '\x'
FROM held h WHERE r.space = h.space AND r.digest = h.digest
RETURNING h.ord";

/// For each row of a known space, whether it was marked. The numbers of the log are given under the
/// lock of the space, which is held until the commit: whoever has the next number commits later.
pub(crate) const FORGET: &str = r"
WITH input AS MATERIALIZED (
    SELECT i.*, s.id AS space
    FROM unnest($1::text[], $2::bytea[], $3::bigint[])
        WITH ORDINALITY AS i (name, digest, keep, ord)
    JOIN spaces s ON s.name = i.name
), held AS MATERIALIZED (
    SELECT i.ord, r.space, r.digest, r.state = 1 AND r.live_until > clock_us() AS live
    FROM input i JOIN rows r ON r.space = i.space AND r.digest = i.digest
    ORDER BY i.ord FOR UPDATE OF r
), gone AS (
    UPDATE rows r SET state = 0, live_until = 0, expires = clock_us(), value = '\x'
    FROM held h WHERE r.space = h.space AND r.digest = h.digest
), counted AS (
    UPDATE spaces s SET forgotten = s.forgotten + c.count
    FROM (SELECT space, count(*) FROM input GROUP BY space) c
    WHERE s.id = c.space
    RETURNING s.id, s.forgotten - c.count AS before
), logged AS (
    INSERT INTO forgotten (space, number, expires, digest)
    SELECT i.space, c.before + row_number() OVER (PARTITION BY i.space ORDER BY i.ord),
        clock_us() + i.keep, i.digest
    FROM input i JOIN counted c ON c.id = i.space
)
SELECT i.ord, coalesce(h.live, false) FROM input i LEFT JOIN held h ON h.ord = i.ord";
