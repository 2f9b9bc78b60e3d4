-- The tables of the Mobileye Data Processing System, schema 21. This file can be applied repeatedly, and makes all of a
-- new database. What it can't do to tables that exist is in db/migrations/. Raise the number with each change: a
-- program refuses tables of a higher one.
-- Needs PostgreSQL 12 or later. All times are UTC instants (timestamptz).

CREATE SCHEMA IF NOT EXISTS mobileye_data;

-- Files -----------------------------------------------------------------------------------------

-- The ledger. A file's entry commits together with its rows: either all of its rows are in the tables and it is
-- here as 'loaded', or none of them is. 'recalled': they were loaded, and taken out again.
CREATE SEQUENCE IF NOT EXISTS mobileye_data.file_ids;

CREATE TABLE IF NOT EXISTS mobileye_data.ingested_files (
    file_id         bigint PRIMARY KEY,     -- from file_ids, drawn before the rows are written
    sha256          bytea UNIQUE,           -- of the bytes as dropped; null if not read, and for a replay
    name            text NOT NULL,
    size            bigint,                 -- bytes as dropped
    kind            text,                   -- objects_detection, vehicles_status; null if not recognised
    state           text NOT NULL CHECK (state IN ('loaded', 'failed', 'recalled')),
    rows_read       bigint NOT NULL DEFAULT 0,
    rows_inserted   bigint NOT NULL DEFAULT 0,
    rows_duplicate  bigint NOT NULL DEFAULT 0,
    rows_rejected   bigint NOT NULL DEFAULT 0,
    started_at      timestamptz NOT NULL,
    finished_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    deliveries      integer NOT NULL DEFAULT 1,
    last_name       text NOT NULL,
    error           text,
    dismissed_at    timestamptz,            -- when and by whom a failure was acknowledged
    dismissed_by    text,
    extra           jsonb,                  -- the fields beside the file's array
    elements_empty  bigint NOT NULL DEFAULT 0,  -- such as events without detections
    recalled_at     timestamptz,            -- when and by whom it was recalled last, and how many rows went
    recalled_by     text,
    rows_recalled   bigint,
    origin          text,                   -- s3://bucket/key, kafka://topic; null if it was a file in a folder
    origin_version  text,                   -- of the object: its version id, or its ETag; the id of the topic
    CONSTRAINT rows_add_up CHECK (rows_read = rows_inserted + rows_duplicate + rows_rejected)
);

COMMENT ON TABLE mobileye_data.ingested_files IS
    'The ledger: one entry for each distinct content that was dropped';
COMMENT ON COLUMN mobileye_data.ingested_files.sha256 IS
    'Digest of the bytes as dropped: the same bytes under another name are the same file; null for a replayed record';
COMMENT ON COLUMN mobileye_data.ingested_files.deliveries IS
    'How often these bytes arrived; a crash between COMMIT and delete counts again';
COMMENT ON COLUMN mobileye_data.ingested_files.last_name IS
    'The name under which these bytes arrived last';
COMMENT ON COLUMN mobileye_data.ingested_files.dismissed_at IS
    'When a person acknowledged the failure; one that failed again after that is open again';
COMMENT ON COLUMN mobileye_data.ingested_files.extra IS
    'The fields beside the array of the file, such as a version; null if there are none';
COMMENT ON COLUMN mobileye_data.ingested_files.elements_empty IS
    'Elements of the array that hold no record: events with an empty array of detections';
COMMENT ON COLUMN mobileye_data.ingested_files.recalled_at IS
    'When the file was recalled last; it may be loaded since then: see state';
COMMENT ON COLUMN mobileye_data.ingested_files.rows_recalled IS
    'The rows that the last recall took out; the other counts of a recalled file are 0';
COMMENT ON COLUMN mobileye_data.ingested_files.origin IS
    'The address of the object of a bucket, as it was loaded or failed first; null for a file of a folder';
COMMENT ON COLUMN mobileye_data.ingested_files.origin_version IS
    'The version id of the object that was read, or its ETag in a bucket without versions';

-- Has an effect only if the sequence was dropped and made again: it must never give an id twice.
SELECT setval('mobileye_data.file_ids', max(file_id))
FROM mobileye_data.ingested_files
HAVING max(file_id) > (SELECT last_value FROM mobileye_data.file_ids);

CREATE INDEX IF NOT EXISTS ingested_files_name ON mobileye_data.ingested_files (name);
CREATE INDEX IF NOT EXISTS ingested_files_finished ON mobileye_data.ingested_files (finished_at);
CREATE INDEX IF NOT EXISTS ingested_files_failed
    ON mobileye_data.ingested_files (finished_at) WHERE state = 'failed';

-- A name under which only a later delivery came: whether a failed file was replaced is asked by the last name.
CREATE INDEX IF NOT EXISTS ingested_files_renamed
    ON mobileye_data.ingested_files (last_name) WHERE last_name <> name;

-- Which ledger this is, for the marker in the watch folder. A dump carries it along; a new database gets another.
CREATE TABLE IF NOT EXISTS mobileye_data.ledger_name (
    name    text NOT NULL,
    is_only boolean PRIMARY KEY DEFAULT true CHECK (is_only)
);
COMMENT ON TABLE mobileye_data.ledger_name IS
    'One row, which names this ledger: the watch folder knows by it where its files go';

-- Records that could not be loaded, each with the reason.
CREATE TABLE IF NOT EXISTS mobileye_data.rejected_records (
    file_id      bigint NOT NULL,
    position     bigint NOT NULL,           -- 0 for the first record of the file
    path         text NOT NULL,             -- JSON path: $.vehicle_status[3].report_time
    reason       text NOT NULL,             -- invalid, conflict, refused
    detail       text NOT NULL,             -- a sentence
    original     json NOT NULL,             -- json, not jsonb, which can't hold \u0000
    rejected_at  timestamptz NOT NULL DEFAULT now(),
    resolved_at  timestamptz,               -- when a replay loaded it
    edited       json,                      -- the text that a replay loaded in place of the original
    resolved_by  bigint,                    -- null also if it was resolved before this column existed
    partition    integer,                   -- of the topic, if it came from one
    message_offset bigint,                  -- of the message there
    message      bytea,                     -- its value, with the first rejected record of a message that is no document
    PRIMARY KEY (file_id, position)
);

COMMENT ON TABLE mobileye_data.rejected_records IS
    'Records that could not be loaded, with their original JSON and the reason';
COMMENT ON COLUMN mobileye_data.rejected_records.reason IS
    'invalid: not as documented; conflict: its key is stored with another value; refused: by the database';

COMMENT ON COLUMN mobileye_data.rejected_records.resolved_by IS
    'The file_id of the replay that loaded it: its rows have this file_id, or were stored already (rows_duplicate)';
COMMENT ON COLUMN mobileye_data.rejected_records.message IS
    'The bytes of the message, with its first rejected record; null for a document and for a file';
COMMENT ON COLUMN mobileye_data.rejected_records.path IS
    'JSON path in the file; after a replay, in a document that holds only this record';

CREATE INDEX IF NOT EXISTS rejected_records_open
    ON mobileye_data.rejected_records (reason, rejected_at) WHERE resolved_at IS NULL;

-- Totals of the ledger --------------------------------------------------------------------------

-- The totals are the sums over these rows: each holds what one change of the ledger has added to them. Rows are only
-- added, never changed, so that no transaction waits for another one here; fold_totals() replaces many by their sums.
CREATE TABLE IF NOT EXISTS mobileye_data.ledger_totals (
    state           text NOT NULL,
    files           bigint NOT NULL DEFAULT 0,
    rows_read       bigint NOT NULL DEFAULT 0,
    rows_inserted   bigint NOT NULL DEFAULT 0,
    rows_duplicate  bigint NOT NULL DEFAULT 0,
    rows_rejected   bigint NOT NULL DEFAULT 0,
    rejects_resolved bigint NOT NULL DEFAULT 0
);
COMMENT ON TABLE mobileye_data.ledger_totals IS
    'The counts of the ledger as parts that have to be added up: nobody has to read all of its entries';

CREATE OR REPLACE FUNCTION mobileye_data.count_files() RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER    -- so whoever may change the ledger needs no right to its totals
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        INSERT INTO mobileye_data.ledger_totals
        SELECT state, count(*), sum(rows_read), sum(rows_inserted), sum(rows_duplicate), sum(rows_rejected)
        FROM added GROUP BY state;
    ELSIF TG_OP = 'DELETE' THEN
        INSERT INTO mobileye_data.ledger_totals
        SELECT state, -count(*), -sum(rows_read), -sum(rows_inserted), -sum(rows_duplicate), -sum(rows_rejected)
        FROM removed GROUP BY state;
    ELSIF EXISTS (SELECT FROM added) THEN   -- INSERT … ON CONFLICT comes here, too, mostly with nothing
        INSERT INTO mobileye_data.ledger_totals
        SELECT state, sum(sign), sum(sign * rows_read), sum(sign * rows_inserted), sum(sign * rows_duplicate),
               sum(sign * rows_rejected)
        FROM (SELECT 1 AS sign, * FROM added UNION ALL SELECT -1, * FROM removed) AS changed
        GROUP BY state
        HAVING (sum(sign), sum(sign * rows_read), sum(sign * rows_inserted), sum(sign * rows_duplicate),
                sum(sign * rows_rejected)) <> (0, 0, 0, 0, 0);
    END IF;
    RETURN NULL;
END
$$;

CREATE OR REPLACE FUNCTION mobileye_data.count_resolved() RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    more bigint := 0;
BEGIN
    IF TG_OP = 'UPDATE' THEN
        more := (SELECT count(resolved_at) FROM added);
    END IF;
    more := more - (SELECT count(resolved_at) FROM removed);
    IF more <> 0 THEN
        INSERT INTO mobileye_data.ledger_totals (state, rejects_resolved) VALUES ('loaded', more);
    END IF;
    RETURN NULL;
END
$$;

-- Replaces the rows by their sums. Only one session does it at a time; none waits for it.
CREATE OR REPLACE FUNCTION mobileye_data.fold_totals() RETURNS void
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NOT pg_try_advisory_xact_lock(hashtext('mobileye_data.ledger_totals'))
       OR (SELECT count(*) < 100 FROM mobileye_data.ledger_totals) THEN
        RETURN;
    END IF;
    WITH folded AS (DELETE FROM mobileye_data.ledger_totals RETURNING *)
    INSERT INTO mobileye_data.ledger_totals
    SELECT state, sum(files), sum(rows_read), sum(rows_inserted), sum(rows_duplicate), sum(rows_rejected),
           sum(rejects_resolved)
    FROM folded GROUP BY state;
END
$$;

-- Adds up the ledger anew. Loads wait meanwhile, at a million entries for a second.
CREATE OR REPLACE FUNCTION mobileye_data.recount_totals() RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    -- The rejects first, as loads do.
    LOCK TABLE mobileye_data.rejected_records, mobileye_data.ingested_files IN SHARE ROW EXCLUSIVE MODE;
    DELETE FROM mobileye_data.ledger_totals;
    INSERT INTO mobileye_data.ledger_totals
    SELECT state, count(*), sum(rows_read), sum(rows_inserted), sum(rows_duplicate), sum(rows_rejected)
    FROM mobileye_data.ingested_files GROUP BY state;
    INSERT INTO mobileye_data.ledger_totals (state, rejects_resolved)
    SELECT 'loaded', count(resolved_at) FROM mobileye_data.rejected_records;
END
$$;

DO $$
BEGIN
    IF (SELECT count(*) FROM pg_trigger
        WHERE tgrelid IN ('mobileye_data.ingested_files'::regclass, 'mobileye_data.rejected_records'::regclass)
          AND tgname IN ('files_added', 'files_changed', 'files_deleted', 'resolved_changed', 'resolved_deleted')) = 5
    THEN
        RETURN;
    END IF;
    -- What is there already is counted under the locks that keep new entries away until the triggers count them.
    PERFORM mobileye_data.recount_totals();
    DROP TRIGGER IF EXISTS files_added ON mobileye_data.ingested_files;
    DROP TRIGGER IF EXISTS files_changed ON mobileye_data.ingested_files;
    DROP TRIGGER IF EXISTS files_deleted ON mobileye_data.ingested_files;
    DROP TRIGGER IF EXISTS resolved_changed ON mobileye_data.rejected_records;
    DROP TRIGGER IF EXISTS resolved_deleted ON mobileye_data.rejected_records;
    CREATE TRIGGER files_added AFTER INSERT ON mobileye_data.ingested_files
        REFERENCING NEW TABLE AS added
        FOR EACH STATEMENT EXECUTE FUNCTION mobileye_data.count_files();
    CREATE TRIGGER files_changed AFTER UPDATE ON mobileye_data.ingested_files
        REFERENCING OLD TABLE AS removed NEW TABLE AS added
        FOR EACH STATEMENT EXECUTE FUNCTION mobileye_data.count_files();
    CREATE TRIGGER files_deleted AFTER DELETE ON mobileye_data.ingested_files
        REFERENCING OLD TABLE AS removed
        FOR EACH STATEMENT EXECUTE FUNCTION mobileye_data.count_files();
    CREATE TRIGGER resolved_changed AFTER UPDATE ON mobileye_data.rejected_records
        REFERENCING OLD TABLE AS removed NEW TABLE AS added
        FOR EACH STATEMENT EXECUTE FUNCTION mobileye_data.count_resolved();
    CREATE TRIGGER resolved_deleted AFTER DELETE ON mobileye_data.rejected_records
        REFERENCING OLD TABLE AS removed
        FOR EACH STATEMENT EXECUTE FUNCTION mobileye_data.count_resolved();
END
$$;

-- What retention has dropped. With it, the rows of each file add up.
CREATE TABLE IF NOT EXISTS mobileye_data.dropped_rows (
    table_name   text NOT NULL,
    day          date NOT NULL,             -- the UTC day of the rows' times
    file_id      bigint NOT NULL,
    rows         bigint NOT NULL,
    dropped_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (table_name, day, file_id)
);
COMMENT ON TABLE mobileye_data.dropped_rows IS
    'Rows that are gone because their day was older than RETENTION_DAYS: how many of each file and day';

-- Streams ---------------------------------------------------------------------------------------

-- Up to where each partition of a topic is loaded. It moves in the transaction of the rows, and only from the offset where the
-- consumer believes it to be: one that was thrown out of its group, and does not know it yet, can't commit.
CREATE TABLE IF NOT EXISTS mobileye_data.stream_positions (
    topic        text NOT NULL,
    topic_id     text NOT NULL,             -- a topic that is deleted and made again has another one
    partition    integer NOT NULL,
    next_offset  bigint NOT NULL,
    moved_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (topic_id, partition)
) WITH (fillfactor = 50);                   -- free space, because its rows are updated all the time
COMMENT ON TABLE mobileye_data.stream_positions IS
    'Partitions of Kafka topics, each with the offset of the next message that is to be loaded';

-- What was lost before it could be loaded, and a person has accepted.
CREATE TABLE IF NOT EXISTS mobileye_data.stream_gaps (
    topic          text NOT NULL,
    topic_id       text NOT NULL,
    partition      integer NOT NULL,
    first_offset   bigint NOT NULL,         -- of the first message that was not loaded
    resume_offset  bigint,                  -- where it goes on; null: the topic is gone
    reason         text NOT NULL,
    accepted_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    accepted_by    text NOT NULL,
    PRIMARY KEY (topic_id, partition, first_offset)
);
COMMENT ON TABLE mobileye_data.stream_gaps IS
    'Messages that were gone before they could be loaded, as accepted by consume --accept-gap';

-- Detections ------------------------------------------------------------------------------------

-- Partitioned by UTC day: inserts stay as fast as into an empty table, and a day can be dropped.
-- Keys are compared as bytes (COLLATE "C"), without a locale: an index search takes half the time.
CREATE TABLE IF NOT EXISTS mobileye_data.objects_detection_events (
    vehicle_id      text COLLATE "C" NOT NULL,
    detection_time  timestamptz NOT NULL,
    object_type     text COLLATE "C" NOT NULL,
    object_value    integer NOT NULL,
    extra           jsonb,                  -- fields of the record that no column holds
    file_id         bigint NOT NULL,        -- no foreign key: checking it would cost time for each row
    PRIMARY KEY (vehicle_id, detection_time, object_type)
) PARTITION BY RANGE (detection_time);

COMMENT ON TABLE mobileye_data.objects_detection_events IS 'One row for each detection';

-- BRIN costs a thousandth of a B-tree in size and upkeep, and is enough to find a time range.
CREATE INDEX IF NOT EXISTS objects_detection_events_time
    ON mobileye_data.objects_detection_events USING brin (detection_time) WITH (autosummarize = on);

CREATE TABLE IF NOT EXISTS mobileye_data.objects_detection_events_other
    PARTITION OF mobileye_data.objects_detection_events DEFAULT;

-- Added to in the transaction of the rows, so that it is exact at any time.
CREATE TABLE IF NOT EXISTS mobileye_data.detections_hourly (
    hour         timestamptz NOT NULL,      -- its beginning, in UTC
    object_type  text COLLATE "C" NOT NULL,
    detections   bigint NOT NULL,
    objects      bigint NOT NULL,           -- the sum of object_value
    PRIMARY KEY (hour, object_type)
) WITH (fillfactor = 50);                   -- free space, because the rows of this hour are updated all the time

COMMENT ON TABLE mobileye_data.detections_hourly IS
    'Detections and objects by hour and type: what the rows of objects_detection_events add up to';

-- For the rows that an older version loaded. The lock waits for loads that are under way, and they for it.
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM mobileye_data.detections_hourly) THEN
        LOCK TABLE ONLY mobileye_data.objects_detection_events IN SHARE MODE;
        INSERT INTO mobileye_data.detections_hourly
        SELECT date_trunc('hour', detection_time, 'UTC'), object_type, count(*), sum(object_value)
        FROM mobileye_data.objects_detection_events
        GROUP BY 1, 2;
    END IF;
END
$$;

-- Counts a UTC day again, after its rows were changed by hand, or its partition was dropped. Loads of the day wait.
CREATE OR REPLACE FUNCTION mobileye_data.recount_hours(day date) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    first timestamptz := format('%s 00:00:00+00', day);
    next timestamptz := format('%s 00:00:00+00', day + 1);
    place regclass;
BEGIN
    -- The day gets no partition meanwhile.
    PERFORM pg_advisory_xact_lock(hashtext('mobileye_data.objects_detection_events'));
    place := coalesce(to_regclass(format('mobileye_data.objects_detection_events_%s', to_char(day, 'YYYYMMDD'))),
                      'mobileye_data.objects_detection_events_other');
    EXECUTE format('LOCK TABLE %s IN SHARE MODE', place);
    DELETE FROM mobileye_data.detections_hourly WHERE hour >= first AND hour < next;
    EXECUTE format($q$
        INSERT INTO mobileye_data.detections_hourly
        SELECT date_trunc('hour', detection_time, 'UTC'), object_type, count(*), sum(object_value)
        FROM %s
        WHERE detection_time >= $1 AND detection_time < $2
        GROUP BY 1, 2
        $q$, place) USING first, next;
END
$$;

-- Vehicle status --------------------------------------------------------------------------------

CREATE TABLE IF NOT EXISTS mobileye_data.vehicle_status_history (
    vehicle_id   text COLLATE "C" NOT NULL,
    report_time  timestamptz NOT NULL,
    status       text COLLATE "C" NOT NULL,
    extra        jsonb,
    file_id      bigint NOT NULL,
    PRIMARY KEY (vehicle_id, report_time)
) PARTITION BY RANGE (report_time);

COMMENT ON TABLE mobileye_data.vehicle_status_history IS 'Every status report';

CREATE INDEX IF NOT EXISTS vehicle_status_history_time
    ON mobileye_data.vehicle_status_history USING brin (report_time) WITH (autosummarize = on);

-- One report in hundreds: their index costs nothing, and spares accidents() all others.
CREATE INDEX IF NOT EXISTS vehicle_status_history_accidents
    ON mobileye_data.vehicle_status_history (report_time) WHERE status = 'accident';

CREATE TABLE IF NOT EXISTS mobileye_data.vehicle_status_history_other
    PARTITION OF mobileye_data.vehicle_status_history DEFAULT;

CREATE TABLE IF NOT EXISTS mobileye_data.vehicle_status (
    vehicle_id   text COLLATE "C" PRIMARY KEY,
    report_time  timestamptz NOT NULL,
    status       text COLLATE "C" NOT NULL,
    extra        jsonb,
    file_id      bigint NOT NULL
) WITH (fillfactor = 70);                   -- free space, because rows are updated often

COMMENT ON TABLE mobileye_data.vehicle_status IS
    'The latest status of each vehicle; an older report never overwrites a newer one';

CREATE INDEX IF NOT EXISTS vehicle_status_by_status
    ON mobileye_data.vehicle_status (status, report_time);

-- Partitions ------------------------------------------------------------------------------------

-- The tables of records: partitioned, with a partition by the name of _other.
CREATE OR REPLACE FUNCTION mobileye_data.record_tables() RETURNS SETOF text
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT relname::text
    FROM pg_partitioned_table JOIN pg_class ON oid = partrelid
    WHERE relnamespace = 'mobileye_data'::regnamespace AND NOT relispartition
      AND to_regclass(format('mobileye_data.%I', relname || '_other')) IS NOT NULL
$$;

-- A renamed table keeps its partitions. Rows of the new table would have none and would be refused: raise an error.
DO $$
DECLARE
    parent text;
BEGIN
    FOR parent IN SELECT * FROM mobileye_data.record_tables() LOOP
        IF NOT EXISTS (SELECT FROM pg_inherits
                       WHERE inhrelid = format('mobileye_data.%I', parent || '_other')::regclass
                         AND inhparent = format('mobileye_data.%I', parent)::regclass) THEN
            RAISE invalid_object_definition
                USING MESSAGE = format('%s_other is no partition of %s: was that renamed?', parent, parent);
        END IF;
    END LOOP;
END
$$;

-- The number of days of a table that may have their own partition. A transaction that uses all of them locks each
-- partition and its two indexes. For all tables of records together this fits into three quarters of the server's
-- lock table, whose size follows from max_locks_per_transaction.
CREATE OR REPLACE FUNCTION mobileye_data.most_days(
    locks bigint DEFAULT current_setting('max_locks_per_transaction')::bigint
) RETURNS bigint
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT least(1500, locks * (current_setting('max_connections')::bigint
                                + current_setting('max_prepared_transactions')::bigint)
                       / (4 * (SELECT count(*) FROM mobileye_data.record_tables())))
$$;

CREATE OR REPLACE FUNCTION mobileye_data.is_full(parent text) RETURNS boolean
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT count(*) > mobileye_data.most_days()     -- ">", because the partition "other" is counted, too
    FROM pg_inherits
    WHERE inhparent = format('mobileye_data.%I', parent)::regclass
$$;

-- The column by which a table is partitioned.
CREATE OR REPLACE FUNCTION mobileye_data.time_column(parent text) RETURNS text
LANGUAGE plpgsql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    found_name text := (SELECT attname FROM pg_partitioned_table
                        JOIN pg_attribute ON attrelid = partrelid AND attnum = partattrs[0]
                        WHERE partrelid = format('mobileye_data.%I', parent)::regclass);
BEGIN
    IF found_name IS NULL THEN
        RAISE wrong_object_type USING MESSAGE = format('%s is not partitioned', parent);
    END IF;
    RETURN found_name;
END
$$;

-- The rows of one UTC day, as a condition.
CREATE OR REPLACE FUNCTION mobileye_data.is_of_day(parent text, day date) RETURNS text
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT format('%1$I >= %2$L AND %1$I < %3$L', mobileye_data.time_column(parent),
                  format('%s 00:00:00+00', day), format('%s 00:00:00+00', day + 1))
$$;

-- Makes the partition of one UTC day.
CREATE OR REPLACE FUNCTION mobileye_data.make_partition(parent text, day date) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    partition_name text := format('%s_%s', parent, to_char(day, 'YYYYMMDD'));
BEGIN
    -- Make the table first and attach it then: attaching does not block writers of the parent, PARTITION OF would.
    EXECUTE format('CREATE TABLE mobileye_data.%I (LIKE mobileye_data.%I INCLUDING DEFAULTS INCLUDING CONSTRAINTS)',
                   partition_name, parent);
    PERFORM mobileye_data.attach_day(parent, partition_name, day);
END
$$;

CREATE OR REPLACE FUNCTION mobileye_data.attach_day(parent text, partition_name text, day date) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    EXECUTE format('ALTER TABLE mobileye_data.%I ATTACH PARTITION mobileye_data.%I FOR VALUES FROM (%L) TO (%L)',
                   parent, partition_name, format('%s 00:00:00+00', day), format('%s 00:00:00+00', day + 1));
END
$$;

-- Gives one UTC day a partition. Returns false if its rows have to go to the partition "other": some are there
-- already, or the table has most_days() partitions. Returns null if a lock is not free; the other days of the
-- table need the same lock.
CREATE OR REPLACE FUNCTION mobileye_data.add_partition(parent text, day date) RETURNS boolean
LANGUAGE plpgsql
SECURITY DEFINER    -- so the role that loads need not own the tables: see db/roles.sql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    has_rows boolean;
BEGIN
    -- For each of the two locks: while a session waits for the lock on "other", all others wait behind it.
    SET LOCAL lock_timeout = '250ms';
    PERFORM pg_advisory_xact_lock(hashtext('mobileye_data.' || parent));
    IF to_regclass(format('mobileye_data.%I', format('%s_%s', parent, to_char(day, 'YYYYMMDD')))) IS NOT NULL THEN
        RETURN true;
    END IF;
    IF mobileye_data.is_full(parent) THEN
        RETURN false;
    END IF;
    -- Attaching would find them, too, but only after it has its lock.
    EXECUTE format('SELECT EXISTS (SELECT FROM mobileye_data.%I WHERE %s)',
                   parent || '_other', mobileye_data.is_of_day(parent, day)) INTO has_rows;
    IF has_rows THEN
        RETURN false;
    END IF;
    PERFORM mobileye_data.make_partition(parent, day);
    RETURN true;
EXCEPTION
    WHEN check_violation THEN   -- rows of the day that were committed to "other" since the check
        RETURN false;
    WHEN lock_not_available THEN
        RETURN NULL;
END
$$;

-- Moves of rows from "other" ---------------------------------------------------------------------

-- PostgreSQL takes no partition for a day that has rows in "other". So a move copies all rows of "other" into new
-- tables, one for each day and one for the rest, in small transactions; triggers copy what is loaded meanwhile. When
-- all is copied, the new tables take the place of "other" in one short transaction. Before that nobody reads
-- the copies, and after it nobody reads "other", so each row is there once at any time.
-- A move may be given up, and gone on with by anybody, after each transaction.
CREATE TABLE IF NOT EXISTS mobileye_data.moves (
    table_name  text PRIMARY KEY,
    days        date[] NOT NULL,        -- that get a partition
    source      text NOT NULL,          -- what was copied: see move_source()
    next_block  bigint NOT NULL,        -- of "other"; those before it are copied
    blocks      bigint NOT NULL,        -- rows in later ones are copied by the trigger
    running     text[]                  -- the transactions that were open when all was copied
);
COMMENT ON TABLE mobileye_data.moves IS
    'Moves of rows from the partition "other" of a table that are under way: see bring_home()';

-- The days whose rows are moved next: those with the most rows in "other", as far as there is room for partitions.
CREATE OR REPLACE FUNCTION mobileye_data.strange_days(parent text) RETURNS date[]
LANGUAGE plpgsql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    most constant integer := 10;    -- attaching one takes milliseconds, in which loads wait
    room bigint := mobileye_data.most_days() + 1 - (SELECT count(*) FROM pg_inherits
                                                    WHERE inhparent = format('mobileye_data.%I', parent)::regclass);
    chosen date[];
BEGIN
    EXECUTE format($q$
        SELECT array_agg(day ORDER BY day) FROM (
            SELECT (%1$I AT TIME ZONE 'UTC')::date AS day FROM mobileye_data.%2$I
            WHERE %1$I >= '0001-01-01 00:00:00+00' AND %1$I < '10000-01-01 00:00:00+00'   -- excludes 'infinity'
            GROUP BY 1
            HAVING to_regclass(format('mobileye_data.%%I', %3$L || to_char((%1$I AT TIME ZONE 'UTC')::date, '_YYYYMMDD')))
                   IS NULL
            ORDER BY count(*) DESC, 1 LIMIT $1
        ) found
        $q$, mobileye_data.time_column(parent), parent || '_other', parent)
    INTO chosen USING greatest(0, least(most, room));
    RETURN chosen;
END
$$;

-- Whoever deletes or changes a row of "other" ends the move: it begins again.
CREATE OR REPLACE FUNCTION mobileye_data.end_move() RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    DELETE FROM mobileye_data.moves WHERE table_name = TG_ARGV[0];
    RETURN NULL;
END
$$;

-- What a move relies on. The file of "other" is another one after TRUNCATE, CLUSTER and VACUUM FULL, the server after a
-- restore, the definition after an ALTER TABLE: then the move begins again.
CREATE OR REPLACE FUNCTION mobileye_data.move_source(parent text) RETURNS text
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT concat_ws(' ', system_identifier,
        pg_relation_filenode(format('mobileye_data.%I', parent || '_other')::regclass),
        (SELECT md5(string_agg(format('%s %s %s', attname, atttypid, attnotnull), ',' ORDER BY attnum))
         FROM pg_attribute WHERE attrelid = place AND attnum > 0 AND NOT attisdropped),
        (SELECT md5(string_agg(conname || pg_get_constraintdef(oid), ',' ORDER BY conname))
         FROM pg_constraint WHERE conrelid = place),
        (SELECT md5(string_agg(pg_get_indexdef(indexrelid), ',' ORDER BY indexrelid))
         FROM pg_index WHERE indrelid = place))
    FROM pg_control_system(), CAST(format('mobileye_data.%I', parent) AS regclass) place
$$;

CREATE OR REPLACE FUNCTION mobileye_data.begin_move(parent text, days date[]) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    copies text := parent || '_moving';
    other text := parent || '_other';
    day date;
BEGIN
    EXECUTE format('CREATE TABLE mobileye_data.%I (LIKE mobileye_data.%I INCLUDING DEFAULTS INCLUDING CONSTRAINTS
                    INCLUDING INDEXES) PARTITION BY RANGE (%I)', copies, parent, mobileye_data.time_column(parent));
    FOREACH day IN ARRAY days LOOP
        -- With this constraint, attaching it reads no row.
        EXECUTE format('CREATE TABLE mobileye_data.%I PARTITION OF mobileye_data.%I (CONSTRAINT of_day CHECK (%s))
                        FOR VALUES FROM (%L) TO (%L)',
                       copies || to_char(day, '_YYYYMMDD'), copies, mobileye_data.is_of_day(parent, day),
                       format('%s 00:00:00+00', day), format('%s 00:00:00+00', day + 1));
    END LOOP;
    EXECUTE format('CREATE TABLE mobileye_data.%I PARTITION OF mobileye_data.%I DEFAULT', copies || '_rest', copies);
    EXECUTE format($f$
        CREATE FUNCTION mobileye_data.%I() RETURNS trigger
        LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
        AS 'BEGIN INSERT INTO mobileye_data.%I VALUES (NEW.*); RETURN NULL; END'
        $f$, copies || '_copy', copies);
    -- Waits for loads that wrote to "other" before the triggers: after that, what they wrote can be seen.
    EXECUTE format('LOCK TABLE ONLY mobileye_data.%I IN SHARE ROW EXCLUSIVE MODE', other);
    EXECUTE format('CREATE TRIGGER move_copies AFTER INSERT ON mobileye_data.%I
                    FOR EACH ROW EXECUTE FUNCTION mobileye_data.%I()', other, copies || '_copy');
    EXECUTE format('CREATE TRIGGER move_ends AFTER UPDATE OR DELETE ON mobileye_data.%I
                    FOR EACH ROW EXECUTE FUNCTION mobileye_data.end_move(%L)', other, parent);
    INSERT INTO mobileye_data.moves
    SELECT parent, days, mobileye_data.move_source(parent), 0,
           pg_relation_size(format('mobileye_data.%I', other)::regclass) / current_setting('block_size')::bigint;
END
$$;

-- Removes what a move that was ended has left.
CREATE OR REPLACE FUNCTION mobileye_data.clear_move(parent text) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    DELETE FROM mobileye_data.moves WHERE table_name = parent;
    EXECUTE format('DROP TRIGGER IF EXISTS move_copies ON mobileye_data.%I', parent || '_other');
    EXECUTE format('DROP TRIGGER IF EXISTS move_ends ON mobileye_data.%I', parent || '_other');
    EXECUTE format('DROP TABLE IF EXISTS mobileye_data.%I', parent || '_moving');
    EXECUTE format('DROP FUNCTION IF EXISTS mobileye_data.%I()', parent || '_moving_copy');
END
$$;

CREATE OR REPLACE FUNCTION mobileye_data.copy_blocks(move mobileye_data.moves, most_blocks bigint) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    -- ON CONFLICT: the trigger has copied rows for which there was room in these blocks.
    EXECUTE format('INSERT INTO mobileye_data.%I SELECT * FROM mobileye_data.%I WHERE ctid >= %L AND ctid < %L
                    ON CONFLICT DO NOTHING', move.table_name || '_moving', move.table_name || '_other',
                   format('(%s,0)', move.next_block), format('(%s,0)', move.next_block + most_blocks));
    UPDATE mobileye_data.moves SET next_block = next_block + most_blocks WHERE table_name = move.table_name;
END
$$;

-- The transactions of this database that are open now, but for our own.
CREATE OR REPLACE FUNCTION mobileye_data.open_transactions() RETURNS SETOF text
LANGUAGE sql
VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT virtualtransaction
    FROM pg_locks JOIN pg_stat_activity USING (pid)
    WHERE locktype = 'virtualxid' AND granted AND datname = current_database() AND pid <> pg_backend_pid()
$$;

-- Puts the copies in the place of "other". Nobody reads or writes the table meanwhile.
CREATE OR REPLACE FUNCTION mobileye_data.finish_move(parent text, days date[]) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    copies text := parent || '_moving';
    rest text := copies || '_rest';
    day date;
    copy_of_day text;
    named record;
BEGIN
    -- The table before its partition: a session looks up the partitions first, and then waits for each.
    EXECUTE format('LOCK TABLE ONLY mobileye_data.%I IN ACCESS EXCLUSIVE MODE', parent);
    EXECUTE format('LOCK TABLE ONLY mobileye_data.%I IN ACCESS EXCLUSIVE MODE', parent || '_other');
    EXECUTE format('ALTER TABLE mobileye_data.%I DETACH PARTITION mobileye_data.%I', parent, parent || '_other');
    FOREACH day IN ARRAY days LOOP
        copy_of_day := copies || to_char(day, '_YYYYMMDD');
        EXECUTE format('ALTER TABLE mobileye_data.%I DETACH PARTITION mobileye_data.%I', copies, copy_of_day);
        PERFORM mobileye_data.attach_day(parent, copy_of_day, day);
        EXECUTE format('ALTER TABLE mobileye_data.%I DROP CONSTRAINT of_day', copy_of_day);
    END LOOP;
    EXECUTE format('ALTER TABLE mobileye_data.%I DETACH PARTITION mobileye_data.%I', copies, rest);
    EXECUTE format('ALTER TABLE mobileye_data.%I ATTACH PARTITION mobileye_data.%I DEFAULT', parent, rest);
    EXECUTE format('DROP TABLE mobileye_data.%I', parent || '_other');
    FOR named IN SELECT relname, relkind FROM pg_class
                 WHERE relnamespace = 'mobileye_data'::regnamespace AND relkind IN ('r', 'i')
                   AND starts_with(relname, copies || '_')
    LOOP
        EXECUTE format('ALTER %s mobileye_data.%I RENAME TO %I',
                       CASE named.relkind WHEN 'r' THEN 'TABLE' ELSE 'INDEX' END, named.relname,
                       replace(replace(named.relname, rest, parent || '_other'), copies, parent));
    END LOOP;
    PERFORM mobileye_data.clear_move(parent);
END
$$;

-- A migration may have changed the tables: moves begin again.
DO $$
DECLARE
    parent text;
BEGIN
    FOR parent IN SELECT * FROM mobileye_data.record_tables() LOOP
        IF to_regclass(format('mobileye_data.%I', parent || '_moving')) IS NOT NULL THEN
            PERFORM mobileye_data.clear_move(parent);
        END IF;
    END LOOP;
END
$$;

-- Takes the next step of giving days that have rows in "other" their own partitions; each call has to be a
-- transaction of its own. The step is 'going': call again; 'moved': the days have their partitions now, call again;
-- 'held up': somebody else is at work on the table, try again later; 'done': nothing is left to do.
CREATE OR REPLACE FUNCTION mobileye_data.bring_home(
    parent text, most_blocks bigint, OUT step text, OUT days date[]
)
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    move mobileye_data.moves;
    has_copies boolean := to_regclass(format('mobileye_data.%I', parent || '_moving')) IS NOT NULL;
BEGIN
    step := 'held up';
    -- For each lock: while a session waits for one, loads wait behind it.
    SET LOCAL lock_timeout = '50ms';
    SELECT * INTO move FROM mobileye_data.moves WHERE table_name = parent FOR UPDATE NOWAIT;
    IF has_copies AND move.next_block < move.blocks AND move.source = mobileye_data.move_source(parent) THEN
        PERFORM mobileye_data.copy_blocks(move, most_blocks);
        step := 'going';
        RETURN;
    END IF;
    days := CASE WHEN has_copies THEN move.days ELSE mobileye_data.strange_days(parent) END;
    IF NOT has_copies AND days IS NULL THEN
        step := 'done';
    ELSIF NOT pg_try_advisory_xact_lock(hashtext('mobileye_data.' || parent)) THEN
        RETURN;
    ELSIF NOT has_copies THEN
        PERFORM mobileye_data.begin_move(parent, days);
        step := 'going';
    ELSIF move.source IS DISTINCT FROM mobileye_data.move_source(parent) THEN
        PERFORM mobileye_data.clear_move(parent);
        step := 'going';
    ELSIF move.running IS NULL THEN
        UPDATE mobileye_data.moves SET running = ARRAY(SELECT mobileye_data.open_transactions())
        WHERE table_name = parent;
        step := 'going';
    -- Their snapshots may be older than a copy: they would miss its rows.
    ELSIF NOT move.running && ARRAY(SELECT mobileye_data.open_transactions()) THEN
        PERFORM mobileye_data.finish_move(parent, move.days);
        step := 'moved';
        RETURN;
    END IF;
    days := NULL;
EXCEPTION WHEN lock_not_available OR duplicate_table OR check_violation THEN
    step := 'held up';
    days := NULL;
END
$$;

-- Retention -------------------------------------------------------------------------------------

-- The days of a table that have a partition and end before that day begins, the oldest first.
CREATE OR REPLACE FUNCTION mobileye_data.days_before(parent text, day date) RETURNS SETOF date
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT to_date(right(relname, 8), 'YYYYMMDD')
    FROM pg_inherits JOIN pg_class ON oid = inhrelid
    WHERE inhparent = format('mobileye_data.%I', parent)::regclass
      AND relname ~ '_[0-9]{8}$' AND to_date(right(relname, 8), 'YYYYMMDD') < day
    ORDER BY 1
$$;

-- Rows of a day that is being dropped, which came or went after begin_drop(): each change of a file's rows is an entry.
CREATE TABLE IF NOT EXISTS mobileye_data.late_rows (
    table_name   text NOT NULL,
    day          date NOT NULL,
    file_id      bigint NOT NULL,
    rows         bigint NOT NULL        -- negative if it went
);
COMMENT ON TABLE mobileye_data.late_rows IS
    'Rows that came to a day, or went, while retention was about to drop it: see drop_day()';

CREATE OR REPLACE FUNCTION mobileye_data.count_late() RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER    -- so whoever loads needs no right to it
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF TG_OP <> 'INSERT' THEN
        INSERT INTO mobileye_data.late_rows VALUES (TG_ARGV[0], TG_ARGV[1]::date, OLD.file_id, -1);
    END IF;
    IF TG_OP <> 'DELETE' THEN
        INSERT INTO mobileye_data.late_rows VALUES (TG_ARGV[0], TG_ARGV[1]::date, NEW.file_id, 1);
    END IF;
    RETURN NULL;
END
$$;

-- Prepares a day for drop_day(), in a transaction of its own: from then on a trigger notes which rows come and go.
-- Returns false if a lock is not free: try again later.
CREATE OR REPLACE FUNCTION mobileye_data.begin_drop(parent text, day date) RETURNS boolean
LANGUAGE plpgsql
SECURITY DEFINER    -- the owner may grant it to the role that loads: see db/roles.sql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    partition_name text := format('%s_%s', parent, to_char(day, 'YYYYMMDD'));
BEGIN
    IF NOT day = ANY (SELECT mobileye_data.days_before(parent, day + 1))
       OR mobileye_data.is_begun(parent, day) THEN
        RETURN true;
    END IF;
    SET LOCAL lock_timeout = '50ms';    -- loads of the day wait as long
    EXECUTE format('CREATE TRIGGER late_rows AFTER INSERT OR UPDATE OR DELETE ON mobileye_data.%I
                    FOR EACH ROW EXECUTE FUNCTION mobileye_data.count_late(%L, %L)', partition_name, parent, day);
    RETURN true;
EXCEPTION WHEN lock_not_available OR duplicate_object THEN
    RETURN false;
END
$$;

CREATE OR REPLACE FUNCTION mobileye_data.is_begun(parent text, day date) RETURNS boolean
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT EXISTS (SELECT FROM pg_trigger
                   WHERE tgname = 'late_rows' AND tgrelid = to_regclass(
                       format('mobileye_data.%I', format('%s_%s', parent, to_char(day, 'YYYYMMDD')))))
$$;

-- Drops the partition of a day after begin_drop(), and notes how many rows of each file it had. Returns the number of
-- its rows, or null if a lock is not free: try again later.
-- Nobody waits while the rows are counted. The locks come last, and only the rows that came meanwhile are counted under
-- them: all loads of the table wait behind them.
CREATE OR REPLACE FUNCTION mobileye_data.drop_day(parent text, day date) RETURNS bigint
LANGUAGE plpgsql
SECURITY DEFINER    -- the owner may grant it to the role that loads: see db/roles.sql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    partition_name text := format('%s_%s', parent, to_char(day, 'YYYYMMDD'));
    dropped bigint;
BEGIN
    IF NOT day = ANY (SELECT mobileye_data.days_before(parent, day + 1)) THEN
        RETURN 0;   -- somebody else has dropped it
    ELSIF NOT mobileye_data.is_begun(parent, day) THEN
        RETURN NULL;
    END IF;
    SET LOCAL lock_timeout = '50ms';
    -- One statement has one snapshot: the late rows that it forgets are among the rows that it counts.
    EXECUTE format($q$
        WITH seen AS (
            DELETE FROM mobileye_data.late_rows WHERE table_name = $1 AND day = $2
        ), gone AS (
            SELECT file_id, count(*) AS rows FROM mobileye_data.%I GROUP BY file_id
        ), noted AS (
            INSERT INTO mobileye_data.dropped_rows AS old (table_name, day, file_id, rows)
            SELECT $1, $2, file_id, rows FROM gone
            ON CONFLICT (table_name, day, file_id)
            DO UPDATE SET rows = old.rows + excluded.rows, dropped_at = now()
        )
        SELECT coalesce(sum(rows), 0) FROM gone
        $q$, partition_name)
    INTO dropped USING parent, day;
    IF NOT pg_try_advisory_xact_lock(hashtext('mobileye_data.' || parent)) THEN
        RAISE lock_not_available;
    END IF;
    EXECUTE format('LOCK TABLE ONLY mobileye_data.%I IN ACCESS EXCLUSIVE MODE', parent);
    EXECUTE format('LOCK TABLE ONLY mobileye_data.%I IN ACCESS EXCLUSIVE MODE NOWAIT', parent || '_other');
    EXECUTE format('LOCK TABLE ONLY mobileye_data.%I IN ACCESS EXCLUSIVE MODE NOWAIT', partition_name);
    WITH late AS (
        DELETE FROM mobileye_data.late_rows l
        WHERE l.table_name = parent AND l.day = drop_day.day
        RETURNING l.file_id, l.rows
    ), gone AS (
        SELECT file_id, sum(rows)::bigint AS rows FROM late GROUP BY file_id
    ), noted AS (
        INSERT INTO mobileye_data.dropped_rows AS old (table_name, day, file_id, rows)
        SELECT parent, drop_day.day, file_id, rows FROM gone
        ON CONFLICT ON CONSTRAINT dropped_rows_pkey
        DO UPDATE SET rows = old.rows + excluded.rows, dropped_at = now()
    )
    SELECT dropped + coalesce(sum(rows), 0) INTO dropped FROM gone;
    IF parent = 'objects_detection_events' THEN
        DELETE FROM mobileye_data.detections_hourly
        WHERE hour >= format('%s 00:00:00+00', day)::timestamptz
          AND hour < format('%s 00:00:00+00', day + 1)::timestamptz;
    END IF;
    EXECUTE format('DROP TABLE mobileye_data.%I', partition_name);
    RETURN dropped;
EXCEPTION
    WHEN lock_not_available THEN
        RETURN NULL;    -- the notes are taken back, too
    WHEN undefined_table THEN
        IF day = ANY (SELECT mobileye_data.days_before(parent, day + 1)) THEN
            RAISE;
        END IF;
        RETURN 0;
END
$$;

-- The same for rows in the partition "other", most_rows at a time. Returns how many there were.
CREATE OR REPLACE FUNCTION mobileye_data.drop_strays(parent text, before date, most_rows bigint) RETURNS bigint
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    dropped bigint;
    counted text := '';
BEGIN
    IF parent = 'objects_detection_events' THEN
        counted := $q$, counted AS (
            INSERT INTO mobileye_data.detections_hourly AS old (hour, object_type, detections, objects)
            SELECT date_trunc('hour', detection_time, 'UTC'), object_type, -count(*), -sum(object_value)
            FROM gone GROUP BY 1, 2 ORDER BY 1, 2
            ON CONFLICT (hour, object_type) DO UPDATE SET
                detections = old.detections + excluded.detections,
                objects = old.objects + excluded.objects
        )$q$;
    END IF;
    EXECUTE format($q$
        WITH gone AS (
            DELETE FROM mobileye_data.%1$I
            WHERE ctid = ANY (ARRAY(SELECT ctid FROM mobileye_data.%1$I WHERE %2$I < $1 LIMIT $2))
            RETURNING *, (%2$I AT TIME ZONE 'UTC')::date AS day
        ), noted AS (
            INSERT INTO mobileye_data.dropped_rows AS old (table_name, day, file_id, rows)
            SELECT $3, day, file_id, count(*) FROM gone GROUP BY day, file_id
            ON CONFLICT (table_name, day, file_id)
            DO UPDATE SET rows = old.rows + excluded.rows, dropped_at = now()
        )%3$s
        SELECT count(*) FROM gone
        $q$, parent || '_other', mobileye_data.time_column(parent), counted)
    INTO dropped USING before::timestamp AT TIME ZONE 'UTC', most_rows, parent;
    RETURN dropped;
END
$$;

-- They delete rows: nobody but the owner, unless he grants it.
REVOKE EXECUTE ON FUNCTION mobileye_data.begin_drop(text, date), mobileye_data.drop_day(text, date),
    mobileye_data.drop_strays(text, date, bigint)
FROM PUBLIC;

-- The rows in the partitions "other", by table and day.
CREATE OR REPLACE FUNCTION mobileye_data.other_rows() RETURNS TABLE (table_name text, day date, rows bigint)
LANGUAGE plpgsql
STABLE
SECURITY DEFINER    -- the role that loads may read the table, but not its partitions by name
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    parent text;
BEGIN
    FOR parent IN SELECT * FROM mobileye_data.record_tables() ORDER BY 1 LOOP
        RETURN QUERY EXECUTE format('
            SELECT %L, (%I AT TIME ZONE ''UTC'')::date, count(*) FROM mobileye_data.%I GROUP BY 2 ORDER BY 2',
            parent, mobileye_data.time_column(parent), parent || '_other');
    END LOOP;
END
$$;

-- Questions -------------------------------------------------------------------------------------

CREATE OR REPLACE VIEW mobileye_data.detections_by_hour AS
    SELECT hour, object_type, detections, objects
    FROM mobileye_data.detections_hourly
    WHERE detections > 0;
COMMENT ON VIEW mobileye_data.detections_by_hour IS 'Counts by object type and hour';

CREATE OR REPLACE VIEW mobileye_data.vehicles_by_status AS
    SELECT status,
           count(*)         AS vehicles,
           max(report_time) AS latest_report
    FROM mobileye_data.vehicle_status
    GROUP BY status;
COMMENT ON VIEW mobileye_data.vehicles_by_status IS 'How many vehicles are in each status now';

CREATE OR REPLACE VIEW mobileye_data.vehicle_timeline AS
    SELECT vehicle_id, detection_time AS at, object_type AS what, object_value AS value, file_id
    FROM mobileye_data.objects_detection_events
    UNION ALL
    SELECT vehicle_id, report_time, status, NULL, file_id
    FROM mobileye_data.vehicle_status_history;
COMMENT ON VIEW mobileye_data.vehicle_timeline IS
    'All that is known of a vehicle, by time: filter by vehicle_id and by a range of "at"';

CREATE OR REPLACE VIEW mobileye_data.open_rejects AS
    SELECT f.name, r.file_id, r.position, r.path, r.reason, r.detail, r.original, r.rejected_at,
           r.edited, r.partition, r.message_offset
    FROM mobileye_data.rejected_records r
    JOIN mobileye_data.ingested_files f USING (file_id)
    WHERE r.resolved_at IS NULL;
COMMENT ON VIEW mobileye_data.open_rejects IS 'Rejected records that no replay has loaded yet';

CREATE OR REPLACE VIEW mobileye_data.rejects_by_reason AS
    SELECT r.reason,
           f.kind,
           count(*)                                       AS records,
           count(*) FILTER (WHERE r.resolved_at IS NULL)  AS open,
           max(r.rejected_at)                             AS latest
    FROM mobileye_data.rejected_records r
    JOIN mobileye_data.ingested_files f USING (file_id)
    GROUP BY r.reason, f.kind;
COMMENT ON VIEW mobileye_data.rejects_by_reason IS 'Rejected records by reason and kind of file';

-- Questions with a range are functions. A view with a condition such as "> now() - interval '1 hour'" plans all
-- partitions and locks them. EXECUTE plans with the values of a call, so only with the partitions of its range.
-- A range is from `since` to before `until`. docs/questions.md has examples.

CREATE OR REPLACE FUNCTION mobileye_data.vehicle_timeline(
    vehicle text, since timestamptz, until timestamptz DEFAULT 'infinity'
) RETURNS TABLE (at timestamptz, what text, value integer, file_id bigint)
LANGUAGE plpgsql
STABLE
SET search_path = pg_catalog, pg_temp
SET jit = off
AS $$
BEGIN
    RETURN QUERY EXECUTE $q$
        SELECT detection_time, object_type, object_value, file_id
        FROM mobileye_data.objects_detection_events
        WHERE vehicle_id = $1 AND detection_time >= $2 AND detection_time < $3
        UNION ALL
        SELECT report_time, status, NULL, file_id
        FROM mobileye_data.vehicle_status_history
        WHERE vehicle_id = $1 AND report_time >= $2 AND report_time < $3
        ORDER BY 1, 2
        $q$ USING vehicle, since, until;
END
$$;
COMMENT ON FUNCTION mobileye_data.vehicle_timeline(text, timestamptz, timestamptz) IS
    'Detections and status reports of a vehicle, by time; a report has no value';

-- The hours that begin in the range; of a vehicle, or of all.
CREATE OR REPLACE FUNCTION mobileye_data.detections_by_hour(
    since timestamptz, until timestamptz DEFAULT 'infinity', vehicle text DEFAULT NULL
) RETURNS TABLE (hour timestamptz, object_type text, detections bigint, objects bigint)
LANGUAGE plpgsql
STABLE
SET search_path = pg_catalog, pg_temp
SET jit = off
AS $$
DECLARE
    nearly interval := interval '1 hour' - interval '1 microsecond';
BEGIN
    IF vehicle IS NULL THEN
        RETURN QUERY EXECUTE $q$
            SELECT hour, object_type, detections, objects
            FROM mobileye_data.detections_by_hour
            WHERE hour >= $1 AND hour < $2
            ORDER BY 1, 2
            $q$ USING since, until;
    ELSE
        RETURN QUERY EXECUTE $q$
            SELECT date_trunc('hour', detection_time, 'UTC'), object_type, count(*), sum(object_value)
            FROM mobileye_data.objects_detection_events
            WHERE vehicle_id = $1 AND detection_time >= $2 AND detection_time < $3
            GROUP BY 1, 2
            ORDER BY 1, 2
            $q$ USING vehicle, date_trunc('hour', since + nearly, 'UTC'), date_trunc('hour', until + nearly, 'UTC');
    END IF;
END
$$;
COMMENT ON FUNCTION mobileye_data.detections_by_hour(timestamptz, timestamptz, text) IS
    'Counts by object type and hour, of the hours that begin in the range; of all vehicles, or of one';

CREATE OR REPLACE FUNCTION mobileye_data.accidents(
    since timestamptz, until timestamptz DEFAULT 'infinity', minutes integer DEFAULT 10
) RETURNS TABLE (vehicle_id text, report_time timestamptz, object_type text, detections bigint, objects bigint,
                 last_seen timestamptz)
LANGUAGE plpgsql
STABLE
SET search_path = pg_catalog, pg_temp
SET jit = off
AS $$
DECLARE
    before interval := make_interval(mins => minutes);
BEGIN
    RETURN QUERY EXECUTE $q$
        SELECT a.vehicle_id, a.report_time, seen.*
        FROM mobileye_data.vehicle_status_history a
        LEFT JOIN LATERAL (
            SELECT d.object_type, count(*), sum(d.object_value), max(d.detection_time)
            FROM mobileye_data.objects_detection_events d
            WHERE d.vehicle_id = a.vehicle_id
              AND d.detection_time >= a.report_time - $3 AND d.detection_time <= a.report_time
              AND d.detection_time >= $4 AND d.detection_time < $2      -- leaves out partitions when planned
            GROUP BY d.object_type
        ) seen ON true
        WHERE a.status = 'accident' AND a.report_time >= $1 AND a.report_time < $2
        ORDER BY 2, 1, 3
        $q$ USING since, until, before, since - before;
END
$$;
COMMENT ON FUNCTION mobileye_data.accidents(timestamptz, timestamptz, integer) IS
    'Reports of an accident, with what the vehicle detected in the minutes before; nulls if it detected nothing';

CREATE OR REPLACE FUNCTION mobileye_data.busiest_vehicles(
    since timestamptz, until timestamptz DEFAULT 'infinity', most bigint DEFAULT 10
) RETURNS TABLE (vehicle_id text, detections bigint, objects bigint)
LANGUAGE plpgsql
STABLE
SET search_path = pg_catalog, pg_temp
SET jit = off
AS $$
BEGIN
    RETURN QUERY EXECUTE $q$
        SELECT vehicle_id, count(*), sum(object_value)
        FROM mobileye_data.objects_detection_events
        WHERE detection_time >= $1 AND detection_time < $2
        GROUP BY 1
        ORDER BY 2 DESC, 1
        LIMIT $3
        $q$ USING since, until, most;
END
$$;
COMMENT ON FUNCTION mobileye_data.busiest_vehicles(timestamptz, timestamptz, bigint) IS
    'The vehicles with the most detections; reads all detections of the range';

CREATE OR REPLACE FUNCTION mobileye_data.files_by_day(
    since timestamptz, until timestamptz DEFAULT 'infinity'
) RETURNS TABLE (day date, kind text, state text, files bigint, bytes bigint, rows_read bigint,
                 rows_inserted bigint, rows_duplicate bigint, rows_rejected bigint)
LANGUAGE plpgsql
STABLE
SET search_path = pg_catalog, pg_temp
SET jit = off
AS $$
BEGIN
    RETURN QUERY EXECUTE $q$
        SELECT (finished_at AT TIME ZONE 'UTC')::date, kind, state, count(*), coalesce(sum(size), 0)::bigint,
               sum(rows_read)::bigint, sum(rows_inserted)::bigint, sum(rows_duplicate)::bigint,
               sum(rows_rejected)::bigint
        FROM mobileye_data.ingested_files
        WHERE finished_at >= $1 AND finished_at < $2
        GROUP BY 1, 2, 3
        ORDER BY 1, 2, 3
        $q$ USING since, until;
END
$$;
COMMENT ON FUNCTION mobileye_data.files_by_day(timestamptz, timestamptz) IS
    'Files and records by the UTC day on which they were finished, by kind and state';

CREATE OR REPLACE VIEW mobileye_data.rows_in_other AS
    SELECT table_name, day, rows FROM mobileye_data.other_rows();
COMMENT ON VIEW mobileye_data.rows_in_other IS
    'Rows of days without a partition of their own, by table and day; maintain moves them';

CREATE OR REPLACE VIEW mobileye_data.dropped_days AS
    SELECT table_name, day, count(*) AS files, sum(rows)::bigint AS rows, max(dropped_at) AS dropped_at
    FROM mobileye_data.dropped_rows
    GROUP BY table_name, day;
COMMENT ON VIEW mobileye_data.dropped_days IS 'Days that retention has dropped, with the rows they had';
