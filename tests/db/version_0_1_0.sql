-- What version 0.1.0 made of some files, dumped by pg_dump --inserts; without settings and comments of psql.
SET check_function_bodies = false;
CREATE SCHEMA mobileye_data;
COMMENT ON SCHEMA mobileye_data IS 'Mobileye Data Processing System, schema 81fa848610d62334';
CREATE FUNCTION mobileye_data.add_partition(parent text, day date) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
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
    PERFORM mobileye_data.make_partition(parent, day, false);
    RETURN true;
EXCEPTION
    WHEN check_violation THEN   -- rows of the day that were committed to "other" since the check
        RETURN false;
    WHEN lock_not_available THEN
        RETURN NULL;
END
$$;
CREATE FUNCTION mobileye_data.bring_home(parent text, most_rows bigint) RETURNS date
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
DECLARE
    chosen date;
BEGIN
    SET LOCAL lock_timeout = '250ms';
    IF NOT pg_try_advisory_xact_lock(hashtext('mobileye_data.' || parent)) OR mobileye_data.is_full(parent) THEN
        RETURN NULL;
    END IF;
    chosen := mobileye_data.strange_day(parent, most_rows);
    IF chosen IS NOT NULL THEN
        -- Lock the table before its partition. A session looks up the partitions first and then waits for each: if
        -- "other" were locked first, a session that waits for it would miss rows that moved to the new one. Both
        -- locks come before the rows are read: no row of an uncommitted load can be there after that.
        EXECUTE format('LOCK TABLE ONLY mobileye_data.%I IN ACCESS EXCLUSIVE MODE', parent);
        EXECUTE format('LOCK TABLE ONLY mobileye_data.%I IN ACCESS EXCLUSIVE MODE', parent || '_other');
        PERFORM mobileye_data.make_partition(parent, chosen, true);
    END IF;
    RETURN chosen;
EXCEPTION WHEN lock_not_available THEN
    RETURN NULL;
END
$$;
CREATE FUNCTION mobileye_data.is_full(parent text) RETURNS boolean
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    SELECT count(*) > mobileye_data.most_days()     -- ">", because the partition "other" is counted, too
    FROM pg_inherits
    WHERE inhparent = format('mobileye_data.%I', parent)::regclass
$$;
CREATE FUNCTION mobileye_data.is_of_day(parent text, day date) RETURNS text
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
    SELECT format('%1$I >= %2$L AND %1$I < %3$L', mobileye_data.time_column(parent),
                  format('%s 00:00:00+00', day), format('%s 00:00:00+00', day + 1))
$_$;
CREATE FUNCTION mobileye_data.make_partition(parent text, day date, moving boolean) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
DECLARE
    partition_name text := format('%s_%s', parent, to_char(day, 'YYYYMMDD'));
BEGIN
    -- Make the table first and attach it then: attaching does not block writers of the parent, PARTITION OF would.
    EXECUTE format('CREATE TABLE mobileye_data.%I (LIKE mobileye_data.%I INCLUDING DEFAULTS INCLUDING CONSTRAINTS)',
                   partition_name, parent);
    IF moving THEN
        -- DELETE, not TRUNCATE: a reader with an older snapshot still finds the rows where they were.
        EXECUTE format('WITH moved AS (DELETE FROM mobileye_data.%I WHERE %s RETURNING *)
                        INSERT INTO mobileye_data.%I SELECT * FROM moved',
                       parent || '_other', mobileye_data.is_of_day(parent, day), partition_name);
    END IF;
    EXECUTE format('ALTER TABLE mobileye_data.%I ATTACH PARTITION mobileye_data.%I FOR VALUES FROM (%L) TO (%L)',
                   parent, partition_name, format('%s 00:00:00+00', day), format('%s 00:00:00+00', day + 1));
END
$$;
CREATE FUNCTION mobileye_data.most_days(locks bigint DEFAULT (current_setting('max_locks_per_transaction'::text))::bigint) RETURNS bigint
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    SELECT least(1500, locks * (current_setting('max_connections')::bigint
                                + current_setting('max_prepared_transactions')::bigint) / 8)
$$;
CREATE FUNCTION mobileye_data.strange_day(parent text, most_rows bigint) RETURNS date
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
DECLARE
    chosen date;
BEGIN
    EXECUTE format($q$
        SELECT (%1$I AT TIME ZONE 'UTC')::date FROM mobileye_data.%2$I
        WHERE %1$I >= '0001-01-01 00:00:00+00' AND %1$I < '10000-01-01 00:00:00+00'   -- excludes 'infinity'
        GROUP BY 1
        HAVING count(*) <= $1
           AND to_regclass('mobileye_data.' || %3$L || to_char((%1$I AT TIME ZONE 'UTC')::date, '_YYYYMMDD')) IS NULL
        ORDER BY 1 LIMIT 1
        $q$, mobileye_data.time_column(parent), parent || '_other', parent) INTO chosen USING most_rows;
    RETURN chosen;
END
$_$;
CREATE FUNCTION mobileye_data.time_column(parent text) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
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
CREATE TABLE mobileye_data.objects_detection_events (
    vehicle_id text NOT NULL COLLATE pg_catalog."C",
    detection_time timestamp with time zone NOT NULL,
    object_type text NOT NULL COLLATE pg_catalog."C",
    object_value integer NOT NULL,
    extra jsonb,
    file_id bigint NOT NULL
)
PARTITION BY RANGE (detection_time);
COMMENT ON TABLE mobileye_data.objects_detection_events IS 'One row for each detection';
CREATE VIEW mobileye_data.detections_by_hour AS
 SELECT date_trunc('hour'::text, objects_detection_events.detection_time) AS hour,
    objects_detection_events.object_type,
    count(*) AS detections,
    sum(objects_detection_events.object_value) AS objects
   FROM mobileye_data.objects_detection_events
  GROUP BY (date_trunc('hour'::text, objects_detection_events.detection_time)), objects_detection_events.object_type;
COMMENT ON VIEW mobileye_data.detections_by_hour IS 'Counts by object type and hour';
CREATE SEQUENCE mobileye_data.file_ids
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
CREATE TABLE mobileye_data.ingested_files (
    file_id bigint NOT NULL,
    sha256 bytea,
    name text NOT NULL,
    size bigint,
    kind text,
    state text NOT NULL,
    rows_read bigint DEFAULT 0 NOT NULL,
    rows_inserted bigint DEFAULT 0 NOT NULL,
    rows_duplicate bigint DEFAULT 0 NOT NULL,
    rows_rejected bigint DEFAULT 0 NOT NULL,
    started_at timestamp with time zone NOT NULL,
    finished_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    deliveries integer DEFAULT 1 NOT NULL,
    last_name text NOT NULL,
    error text,
    CONSTRAINT ingested_files_state_check CHECK ((state = ANY (ARRAY['loaded'::text, 'failed'::text]))),
    CONSTRAINT rows_add_up CHECK ((rows_read = ((rows_inserted + rows_duplicate) + rows_rejected)))
);
COMMENT ON TABLE mobileye_data.ingested_files IS 'The ledger: one entry for each distinct content that was dropped';
COMMENT ON COLUMN mobileye_data.ingested_files.sha256 IS 'Digest of the bytes as dropped: the same bytes under another name are the same file; null for a replayed record';
COMMENT ON COLUMN mobileye_data.ingested_files.deliveries IS 'How often these bytes arrived; a crash between COMMIT and delete counts again';
COMMENT ON COLUMN mobileye_data.ingested_files.last_name IS 'The name under which these bytes arrived last';
CREATE TABLE mobileye_data.objects_detection_events_20220605 (
    vehicle_id text NOT NULL COLLATE pg_catalog."C",
    detection_time timestamp with time zone NOT NULL,
    object_type text NOT NULL COLLATE pg_catalog."C",
    object_value integer NOT NULL,
    extra jsonb,
    file_id bigint NOT NULL
);
CREATE TABLE mobileye_data.objects_detection_events_other (
    vehicle_id text NOT NULL COLLATE pg_catalog."C",
    detection_time timestamp with time zone NOT NULL,
    object_type text NOT NULL COLLATE pg_catalog."C",
    object_value integer NOT NULL,
    extra jsonb,
    file_id bigint NOT NULL
);
CREATE TABLE mobileye_data.rejected_records (
    file_id bigint NOT NULL,
    "position" bigint NOT NULL,
    path text NOT NULL,
    reason text NOT NULL,
    detail text NOT NULL,
    original json NOT NULL,
    rejected_at timestamp with time zone DEFAULT now() NOT NULL,
    resolved_at timestamp with time zone,
    edited json,
    resolved_by bigint
);
COMMENT ON TABLE mobileye_data.rejected_records IS 'Records that could not be loaded, with their original JSON and the reason';
COMMENT ON COLUMN mobileye_data.rejected_records.path IS 'JSON path in the file; after a replay, in a document that holds only this record';
COMMENT ON COLUMN mobileye_data.rejected_records.reason IS 'invalid: not as documented; conflict: its key is stored with another value; refused: by the database';
COMMENT ON COLUMN mobileye_data.rejected_records.resolved_by IS 'The file_id of the replay that loaded it: its rows have this file_id, or were stored already (rows_duplicate)';
CREATE VIEW mobileye_data.open_rejects AS
 SELECT f.name,
    r.file_id,
    r."position",
    r.path,
    r.reason,
    r.detail,
    r.original,
    r.rejected_at,
    r.edited
   FROM (mobileye_data.rejected_records r
     JOIN mobileye_data.ingested_files f USING (file_id))
  WHERE (r.resolved_at IS NULL);
COMMENT ON VIEW mobileye_data.open_rejects IS 'Rejected records that no replay has loaded yet';
CREATE TABLE mobileye_data.vehicle_status (
    vehicle_id text NOT NULL COLLATE pg_catalog."C",
    report_time timestamp with time zone NOT NULL,
    status text NOT NULL COLLATE pg_catalog."C",
    extra jsonb,
    file_id bigint NOT NULL
)
WITH (fillfactor='70');
COMMENT ON TABLE mobileye_data.vehicle_status IS 'The latest status of each vehicle; an older report never overwrites a newer one';
CREATE TABLE mobileye_data.vehicle_status_history (
    vehicle_id text NOT NULL COLLATE pg_catalog."C",
    report_time timestamp with time zone NOT NULL,
    status text NOT NULL COLLATE pg_catalog."C",
    extra jsonb,
    file_id bigint NOT NULL
)
PARTITION BY RANGE (report_time);
COMMENT ON TABLE mobileye_data.vehicle_status_history IS 'Every status report';
CREATE TABLE mobileye_data.vehicle_status_history_20220505 (
    vehicle_id text NOT NULL COLLATE pg_catalog."C",
    report_time timestamp with time zone NOT NULL,
    status text NOT NULL COLLATE pg_catalog."C",
    extra jsonb,
    file_id bigint NOT NULL
);
CREATE TABLE mobileye_data.vehicle_status_history_20220507 (
    vehicle_id text NOT NULL COLLATE pg_catalog."C",
    report_time timestamp with time zone NOT NULL,
    status text NOT NULL COLLATE pg_catalog."C",
    extra jsonb,
    file_id bigint NOT NULL
);
CREATE TABLE mobileye_data.vehicle_status_history_other (
    vehicle_id text NOT NULL COLLATE pg_catalog."C",
    report_time timestamp with time zone NOT NULL,
    status text NOT NULL COLLATE pg_catalog."C",
    extra jsonb,
    file_id bigint NOT NULL
);
CREATE VIEW mobileye_data.vehicle_timeline AS
 SELECT objects_detection_events.vehicle_id,
    objects_detection_events.detection_time AS at,
    objects_detection_events.object_type AS what,
    objects_detection_events.object_value AS value,
    objects_detection_events.file_id
   FROM mobileye_data.objects_detection_events
UNION ALL
 SELECT vehicle_status_history.vehicle_id,
    vehicle_status_history.report_time AS at,
    vehicle_status_history.status AS what,
    NULL::integer AS value,
    vehicle_status_history.file_id
   FROM mobileye_data.vehicle_status_history;
COMMENT ON VIEW mobileye_data.vehicle_timeline IS 'All that is known of a vehicle, by time: filter by vehicle_id and by a range of "at"';
CREATE VIEW mobileye_data.vehicles_by_status AS
 SELECT vehicle_status.status,
    count(*) AS vehicles,
    max(vehicle_status.report_time) AS latest_report
   FROM mobileye_data.vehicle_status
  GROUP BY vehicle_status.status;
COMMENT ON VIEW mobileye_data.vehicles_by_status IS 'How many vehicles are in each status now';
ALTER TABLE ONLY mobileye_data.objects_detection_events ATTACH PARTITION mobileye_data.objects_detection_events_20220605 FOR VALUES FROM ('2022-06-05 00:00:00+00') TO ('2022-06-06 00:00:00+00');
ALTER TABLE ONLY mobileye_data.objects_detection_events ATTACH PARTITION mobileye_data.objects_detection_events_other DEFAULT;
ALTER TABLE ONLY mobileye_data.vehicle_status_history ATTACH PARTITION mobileye_data.vehicle_status_history_20220505 FOR VALUES FROM ('2022-05-05 00:00:00+00') TO ('2022-05-06 00:00:00+00');
ALTER TABLE ONLY mobileye_data.vehicle_status_history ATTACH PARTITION mobileye_data.vehicle_status_history_20220507 FOR VALUES FROM ('2022-05-07 00:00:00+00') TO ('2022-05-08 00:00:00+00');
ALTER TABLE ONLY mobileye_data.vehicle_status_history ATTACH PARTITION mobileye_data.vehicle_status_history_other DEFAULT;
INSERT INTO mobileye_data.ingested_files VALUES (1, '\x92582ef48c02b5db5888f0abab183e7087c3156846f6ff82386d0611a751b9f4', 'vehicles_status_1.json', 330, 'vehicles_status', 'loaded', 3, 3, 0, 0, '2026-11-28 16:45:03.677088+00', '2026-11-28 16:45:03.73293+00', 1, 'vehicles_status_1.json', NULL);
INSERT INTO mobileye_data.ingested_files VALUES (2, '\x950e84e104e7fb4641194ae4235f5dafe1eec99419d9f384c376b82f5847befa', 'objects_detection_1.json', 422, 'objects_detection', 'loaded', 4, 4, 0, 0, '2026-11-28 16:45:03.705878+00', '2026-11-28 16:45:03.741936+00', 2, 'objects_detection_again.json', NULL);
INSERT INTO mobileye_data.ingested_files VALUES (3, '\x643464e7a8b68a753997107141cbc01629cd90f904cd9b7e897299b0f12ba076', 'vehicles_status_2.json', 347, 'vehicles_status', 'loaded', 4, 1, 0, 3, '2026-11-28 16:45:04.675496+00', '2026-11-28 16:45:04.700208+00', 1, 'vehicles_status_2.json', NULL);
INSERT INTO mobileye_data.ingested_files VALUES (5, '\x58222cf3bdca735b2dbfa07a650b7a2dbeb5e1b6b453e31c04194a4bc43cfb39', 'objects_detection_2.json', 392, 'objects_detection', 'loaded', 4, 1, 2, 1, '2026-11-28 16:45:04.664825+00', '2026-11-28 16:45:04.700365+00', 1, 'objects_detection_2.json', NULL);
INSERT INTO mobileye_data.ingested_files VALUES (6, '\x4f53cda18c2baa0c0354bb5f9a3ecbe5ed12ab4d8e11ba873c2f11161202b945', 'bad.json', 2, NULL, 'failed', 0, 0, 0, 0, '2026-11-28 16:45:04.664817+00', '2026-11-28 16:45:04.70185+00', 1, 'bad.json', 'expected one array under one of the keys objects_detection_events, vehicle_status, got an array');
INSERT INTO mobileye_data.ingested_files VALUES (11, NULL, 'vehicles_status_2.json, record 2 of file 3', 95, 'vehicles_status', 'loaded', 1, 1, 0, 0, '2026-11-28 16:45:05.461428+00', '2026-11-28 16:45:05.554403+00', 1, 'vehicles_status_2.json, record 2 of file 3', NULL);
INSERT INTO mobileye_data.objects_detection_events_20220605 VALUES ('ebab5f787798416fb2b8afc1340d7a4e', '2022-06-05 21:00:01.546+00', 'pedestrians', 3, NULL, 2);
INSERT INTO mobileye_data.objects_detection_events_20220605 VALUES ('ebab5f787798416fb2b8afc1340d7a4e', '2022-06-05 21:00:01.546+00', 'cars', 2, NULL, 2);
INSERT INTO mobileye_data.objects_detection_events_20220605 VALUES ('ebab5f787798416fb2b8afc1340d7a4e', '2022-06-05 21:00:02.546+00', 'pedestrians', 3, NULL, 2);
INSERT INTO mobileye_data.objects_detection_events_20220605 VALUES ('ebab5f787798416fb2b8afc1340d7a4e', '2022-06-05 21:00:02.546+00', 'cars', 2, NULL, 2);
INSERT INTO mobileye_data.objects_detection_events_20220605 VALUES ('ebab5f787798416fb2b8afc1340d7a4e', '2022-06-05 21:00:03.546+00', 'trucks', 1, NULL, 5);
INSERT INTO mobileye_data.rejected_records VALUES (3, 2, '$.vehicle_status[2].status', 'invalid', 'Expected `str`, got `int`', '{"vehicle_id":"ebab5f787798416fb2b8afc1340d7a4e","report_time":"2022-05-05T22:00:03.546Z","status":1}', '2026-11-28 16:45:04.675796+00', '2026-11-28 16:45:05.532836+00', '{"vehicle_id":"c","report_time":"2022-05-07T22:00:01Z","status":"driving"}', 11);
INSERT INTO mobileye_data.rejected_records VALUES (3, 0, '$.vehicle_status[0]', 'conflict', 'Expected the value stored under this key (status=parking extra=null), got another', '{"vehicle_id":"ebab5f787798416fb2b8afc1340d7a4e","report_time":"2022-05-05T22:00:02.546Z","status":"accident"}', '2026-11-28 16:45:04.675796+00', NULL, NULL, NULL);
INSERT INTO mobileye_data.rejected_records VALUES (3, 3, '$.vehicle_status[0]', 'invalid', 'Object missing required field `vehicle_id`', '{}', '2026-11-28 16:45:04.675796+00', NULL, NULL, NULL);
INSERT INTO mobileye_data.rejected_records VALUES (5, 3, '$.objects_detection_events[0]', 'invalid', 'Object missing required field `vehicle_id`', '{"no":"event"}', '2026-11-28 16:45:04.675831+00', NULL, NULL, NULL);
INSERT INTO mobileye_data.vehicle_status VALUES ('b', '2022-05-05 22:00:01.546+00', 'driving', '{"fuel": 0.1}', 1);
INSERT INTO mobileye_data.vehicle_status VALUES ('ebab5f787798416fb2b8afc1340d7a4e', '2022-05-05 22:00:09.546+00', 'accident', NULL, 3);
INSERT INTO mobileye_data.vehicle_status VALUES ('c', '2022-05-07 22:00:01+00', 'driving', NULL, 11);
INSERT INTO mobileye_data.vehicle_status_history_20220505 VALUES ('ebab5f787798416fb2b8afc1340d7a4e', '2022-05-05 22:00:01.546+00', 'driving', NULL, 1);
INSERT INTO mobileye_data.vehicle_status_history_20220505 VALUES ('ebab5f787798416fb2b8afc1340d7a4e', '2022-05-05 22:00:02.546+00', 'parking', NULL, 1);
INSERT INTO mobileye_data.vehicle_status_history_20220505 VALUES ('b', '2022-05-05 22:00:01.546+00', 'driving', '{"fuel": 0.1}', 1);
INSERT INTO mobileye_data.vehicle_status_history_20220505 VALUES ('ebab5f787798416fb2b8afc1340d7a4e', '2022-05-05 22:00:09.546+00', 'accident', NULL, 3);
INSERT INTO mobileye_data.vehicle_status_history_20220507 VALUES ('c', '2022-05-07 22:00:01+00', 'driving', NULL, 11);
SELECT pg_catalog.setval('mobileye_data.file_ids', 14, true);
ALTER TABLE ONLY mobileye_data.ingested_files
    ADD CONSTRAINT ingested_files_pkey PRIMARY KEY (file_id);
ALTER TABLE ONLY mobileye_data.ingested_files
    ADD CONSTRAINT ingested_files_sha256_key UNIQUE (sha256);
ALTER TABLE ONLY mobileye_data.objects_detection_events
    ADD CONSTRAINT objects_detection_events_pkey PRIMARY KEY (vehicle_id, detection_time, object_type);
ALTER TABLE ONLY mobileye_data.objects_detection_events_20220605
    ADD CONSTRAINT objects_detection_events_20220605_pkey PRIMARY KEY (vehicle_id, detection_time, object_type);
ALTER TABLE ONLY mobileye_data.objects_detection_events_other
    ADD CONSTRAINT objects_detection_events_other_pkey PRIMARY KEY (vehicle_id, detection_time, object_type);
ALTER TABLE ONLY mobileye_data.rejected_records
    ADD CONSTRAINT rejected_records_pkey PRIMARY KEY (file_id, "position");
ALTER TABLE ONLY mobileye_data.vehicle_status_history
    ADD CONSTRAINT vehicle_status_history_pkey PRIMARY KEY (vehicle_id, report_time);
ALTER TABLE ONLY mobileye_data.vehicle_status_history_20220505
    ADD CONSTRAINT vehicle_status_history_20220505_pkey PRIMARY KEY (vehicle_id, report_time);
ALTER TABLE ONLY mobileye_data.vehicle_status_history_20220507
    ADD CONSTRAINT vehicle_status_history_20220507_pkey PRIMARY KEY (vehicle_id, report_time);
ALTER TABLE ONLY mobileye_data.vehicle_status_history_other
    ADD CONSTRAINT vehicle_status_history_other_pkey PRIMARY KEY (vehicle_id, report_time);
ALTER TABLE ONLY mobileye_data.vehicle_status
    ADD CONSTRAINT vehicle_status_pkey PRIMARY KEY (vehicle_id);
CREATE INDEX ingested_files_failed ON mobileye_data.ingested_files USING btree (finished_at) WHERE (state = 'failed'::text);
CREATE INDEX ingested_files_finished ON mobileye_data.ingested_files USING btree (finished_at);
CREATE INDEX ingested_files_name ON mobileye_data.ingested_files USING btree (name);
CREATE INDEX objects_detection_events_time ON ONLY mobileye_data.objects_detection_events USING brin (detection_time) WITH (autosummarize='on');
CREATE INDEX objects_detection_events_20220605_detection_time_idx ON mobileye_data.objects_detection_events_20220605 USING brin (detection_time) WITH (autosummarize='on');
CREATE INDEX objects_detection_events_other_detection_time_idx ON mobileye_data.objects_detection_events_other USING brin (detection_time) WITH (autosummarize='on');
CREATE INDEX rejected_records_open ON mobileye_data.rejected_records USING btree (reason, rejected_at) WHERE (resolved_at IS NULL);
CREATE INDEX vehicle_status_by_status ON mobileye_data.vehicle_status USING btree (status, report_time);
CREATE INDEX vehicle_status_history_time ON ONLY mobileye_data.vehicle_status_history USING brin (report_time) WITH (autosummarize='on');
CREATE INDEX vehicle_status_history_20220505_report_time_idx ON mobileye_data.vehicle_status_history_20220505 USING brin (report_time) WITH (autosummarize='on');
CREATE INDEX vehicle_status_history_20220507_report_time_idx ON mobileye_data.vehicle_status_history_20220507 USING brin (report_time) WITH (autosummarize='on');
CREATE INDEX vehicle_status_history_other_report_time_idx ON mobileye_data.vehicle_status_history_other USING brin (report_time) WITH (autosummarize='on');
ALTER INDEX mobileye_data.objects_detection_events_time ATTACH PARTITION mobileye_data.objects_detection_events_20220605_detection_time_idx;
ALTER INDEX mobileye_data.objects_detection_events_pkey ATTACH PARTITION mobileye_data.objects_detection_events_20220605_pkey;
ALTER INDEX mobileye_data.objects_detection_events_time ATTACH PARTITION mobileye_data.objects_detection_events_other_detection_time_idx;
ALTER INDEX mobileye_data.objects_detection_events_pkey ATTACH PARTITION mobileye_data.objects_detection_events_other_pkey;
ALTER INDEX mobileye_data.vehicle_status_history_pkey ATTACH PARTITION mobileye_data.vehicle_status_history_20220505_pkey;
ALTER INDEX mobileye_data.vehicle_status_history_time ATTACH PARTITION mobileye_data.vehicle_status_history_20220505_report_time_idx;
ALTER INDEX mobileye_data.vehicle_status_history_pkey ATTACH PARTITION mobileye_data.vehicle_status_history_20220507_pkey;
ALTER INDEX mobileye_data.vehicle_status_history_time ATTACH PARTITION mobileye_data.vehicle_status_history_20220507_report_time_idx;
ALTER INDEX mobileye_data.vehicle_status_history_pkey ATTACH PARTITION mobileye_data.vehicle_status_history_other_pkey;
ALTER INDEX mobileye_data.vehicle_status_history_time ATTACH PARTITION mobileye_data.vehicle_status_history_other_report_time_idx;
