-- The tables that the Mobileye Data Processing System fills; safe to apply twice.
-- Needs PostgreSQL 12 or later. All times are UTC instants (timestamptz).

CREATE SCHEMA IF NOT EXISTS mobileye_data;

-- Files -----------------------------------------------------------------------------------------

-- The ledger. A file's entry commits together with its rows, so a file is either wholly in the
-- tables and here as 'loaded', or it has left no trace.
CREATE SEQUENCE IF NOT EXISTS mobileye_data.file_ids;

CREATE TABLE IF NOT EXISTS mobileye_data.ingested_files (
    file_id         bigint PRIMARY KEY,     -- from file_ids, drawn before the rows are written
    sha256          bytea UNIQUE,           -- of the bytes as dropped; null if they were not read, or none were
    name            text NOT NULL,
    size            bigint,                 -- bytes as dropped
    kind            text,                   -- objects_detection, vehicles_status; null if not recognised
    state           text NOT NULL CHECK (state IN ('loaded', 'failed')),
    rows_read       bigint NOT NULL DEFAULT 0,
    rows_inserted   bigint NOT NULL DEFAULT 0,
    rows_duplicate  bigint NOT NULL DEFAULT 0,
    rows_rejected   bigint NOT NULL DEFAULT 0,
    started_at      timestamptz NOT NULL,
    finished_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    deliveries      integer NOT NULL DEFAULT 1,
    last_name       text NOT NULL,
    error           text,
    CONSTRAINT rows_add_up CHECK (rows_read = rows_inserted + rows_duplicate + rows_rejected)
);

COMMENT ON TABLE mobileye_data.ingested_files IS
    'The ledger: one entry for each distinct content that was dropped';
COMMENT ON COLUMN mobileye_data.ingested_files.sha256 IS
    'Digest of the bytes as dropped: the same bytes under another name are the same file; null for a record that was loaded again';
COMMENT ON COLUMN mobileye_data.ingested_files.deliveries IS
    'How often these bytes arrived; a crash between COMMIT and delete counts again';
COMMENT ON COLUMN mobileye_data.ingested_files.last_name IS
    'The name under which these bytes arrived last';

-- Only if the sequence was dropped and made again: an id is never drawn twice.
SELECT setval('mobileye_data.file_ids', max(file_id))
FROM mobileye_data.ingested_files
HAVING max(file_id) > (SELECT last_value FROM mobileye_data.file_ids);

CREATE INDEX IF NOT EXISTS ingested_files_name ON mobileye_data.ingested_files (name);
CREATE INDEX IF NOT EXISTS ingested_files_finished ON mobileye_data.ingested_files (finished_at);
CREATE INDEX IF NOT EXISTS ingested_files_failed
    ON mobileye_data.ingested_files (finished_at) WHERE state = 'failed';

-- Records of loaded files that are in no other table, each with the reason.
CREATE TABLE IF NOT EXISTS mobileye_data.rejected_records (
    file_id      bigint NOT NULL,
    position     bigint NOT NULL,           -- 0 for the first record of the file
    path         text NOT NULL,             -- JSON path: $.vehicle_status[3].report_time
    reason       text NOT NULL,             -- invalid, conflict, refused
    detail       text NOT NULL,             -- a sentence
    original     json NOT NULL,             -- json, not jsonb: that cannot hold \u0000
    rejected_at  timestamptz NOT NULL DEFAULT now(),
    resolved_at  timestamptz,               -- when a replay loaded it
    PRIMARY KEY (file_id, position)
);

COMMENT ON TABLE mobileye_data.rejected_records IS
    'Records that could not be loaded, with their original JSON and the reason';
COMMENT ON COLUMN mobileye_data.rejected_records.reason IS
    'invalid: not as documented; conflict: its key is there with another value; refused: by the database';

ALTER TABLE mobileye_data.rejected_records
    ADD COLUMN IF NOT EXISTS edited json;   -- what a replay was given to load in place of the original

ALTER TABLE mobileye_data.rejected_records
    ADD COLUMN IF NOT EXISTS resolved_by bigint;    -- null, too, where it was resolved before there was this column

COMMENT ON COLUMN mobileye_data.rejected_records.resolved_by IS
    'The file_id of the replay that loaded it: its rows are inserted under that, or were there already (rows_duplicate)';
COMMENT ON COLUMN mobileye_data.rejected_records.path IS
    'JSON path in the file; after a replay, in a file of this record alone';

CREATE INDEX IF NOT EXISTS rejected_records_open
    ON mobileye_data.rejected_records (reason, rejected_at) WHERE resolved_at IS NULL;

-- Detections ------------------------------------------------------------------------------------

-- Partitioned by UTC day: inserts stay as fast as into an empty table, and a day can be dropped.
-- Text of keys is compared by bytes (COLLATE "C"): no locale, half the time of an index search.
CREATE TABLE IF NOT EXISTS mobileye_data.objects_detection_events (
    vehicle_id      text COLLATE "C" NOT NULL,
    detection_time  timestamptz NOT NULL,
    object_type     text COLLATE "C" NOT NULL,
    object_value    integer NOT NULL,
    extra           jsonb,                  -- fields of the record that no column holds
    file_id         bigint NOT NULL,        -- no foreign key: it would cost a check a row
    PRIMARY KEY (vehicle_id, detection_time, object_type)
) PARTITION BY RANGE (detection_time);

COMMENT ON TABLE mobileye_data.objects_detection_events IS 'One row a detection';

-- BRIN: a thousandth of a B-tree's size and upkeep; enough to find a time range.
CREATE INDEX IF NOT EXISTS objects_detection_events_time
    ON mobileye_data.objects_detection_events USING brin (detection_time) WITH (autosummarize = on);

CREATE TABLE IF NOT EXISTS mobileye_data.objects_detection_events_other
    PARTITION OF mobileye_data.objects_detection_events DEFAULT;

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

CREATE TABLE IF NOT EXISTS mobileye_data.vehicle_status_history_other
    PARTITION OF mobileye_data.vehicle_status_history DEFAULT;

CREATE TABLE IF NOT EXISTS mobileye_data.vehicle_status (
    vehicle_id   text COLLATE "C" PRIMARY KEY,
    report_time  timestamptz NOT NULL,
    status       text COLLATE "C" NOT NULL,
    extra        jsonb,
    file_id      bigint NOT NULL
) WITH (fillfactor = 70);                   -- rows are updated in place again and again

COMMENT ON TABLE mobileye_data.vehicle_status IS
    'The latest status of each vehicle; an older report never overwrites a newer one';

CREATE INDEX IF NOT EXISTS vehicle_status_by_status
    ON mobileye_data.vehicle_status (status, report_time);

-- Partitions ------------------------------------------------------------------------------------

-- A table that was renamed has kept its partitions: rows of the new one would find none, and be refused.
DO $$
DECLARE
    parent text;
BEGIN
    FOREACH parent IN ARRAY ARRAY['objects_detection_events', 'vehicle_status_history'] LOOP
        IF NOT EXISTS (SELECT FROM pg_inherits
                       WHERE inhrelid = format('mobileye_data.%I', parent || '_other')::regclass
                         AND inhparent = format('mobileye_data.%I', parent)::regclass) THEN
            RAISE invalid_object_definition
                USING MESSAGE = format('%s_other is no partition of %s: was that renamed?', parent, parent);
        END IF;
    END LOOP;
END
$$;

-- Makes the partition of one UTC day; false if the day's rows have to go to the "other" partition:
-- because some are there already, because the lock is not to be had at once, or because a table
-- has its 1,500 days (a transaction over all of them still fits into the lock table of a server
-- with default settings).
CREATE OR REPLACE FUNCTION mobileye_data.add_partition(parent text, day date) RETURNS boolean
LANGUAGE plpgsql
SECURITY DEFINER    -- who loads need not own the tables: see db/roles.sql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    partition_name text := format('%s_%s', parent, to_char(day, 'YYYYMMDD'));
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('mobileye_data.' || parent));
    IF to_regclass(format('mobileye_data.%I', partition_name)) IS NOT NULL THEN
        RETURN true;
    END IF;
    IF (SELECT count(*) FROM pg_inherits
        WHERE inhparent = format('mobileye_data.%I', parent)::regclass) > 1500 THEN
        RETURN false;
    END IF;
    SET LOCAL lock_timeout = '500ms';
    -- Made apart and then attached: attaching lets writers of the parent go on (PARTITION OF would not).
    EXECUTE format('CREATE TABLE mobileye_data.%I (LIKE mobileye_data.%I INCLUDING DEFAULTS INCLUDING CONSTRAINTS)',
                   partition_name, parent);
    EXECUTE format('ALTER TABLE mobileye_data.%I ATTACH PARTITION mobileye_data.%I FOR VALUES FROM (%L) TO (%L)',
                   parent, partition_name, format('%s 00:00:00+00', day), format('%s 00:00:00+00', day + 1));
    RETURN true;
EXCEPTION WHEN check_violation OR lock_not_available THEN
    RETURN false;
END
$$;

-- Questions -------------------------------------------------------------------------------------

CREATE OR REPLACE VIEW mobileye_data.detections_by_hour AS
    SELECT date_trunc('hour', detection_time) AS hour,
           object_type,
           count(*)                           AS detections,
           sum(object_value)                  AS objects
    FROM mobileye_data.objects_detection_events
    GROUP BY 1, 2;
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
    'All that is known of a vehicle, in time: filter by vehicle_id and by a range of "at"';

CREATE OR REPLACE VIEW mobileye_data.open_rejects AS
    SELECT f.name, r.file_id, r.position, r.path, r.reason, r.detail, r.original, r.rejected_at,
           r.edited
    FROM mobileye_data.rejected_records r
    JOIN mobileye_data.ingested_files f USING (file_id)
    WHERE r.resolved_at IS NULL;
COMMENT ON VIEW mobileye_data.open_rejects IS 'Rejected records that no replay has loaded yet';
