-- The role under which the daemon runs, with no right that it does not need; safe to apply twice.
--
-- 1. As the owner of the database, once and after each update: DATABASE_URL=<owner's> python main.py sql 'select 1'
--    (makes the tables). 2. As the same owner, who may create roles: psql -f db/roles.sql <owner's URL>
-- 3. Give it a password (\password mobileye_loader), and its URL to the daemon.
--
-- It reads all tables and adds rows. It can neither delete, empty, alter nor drop anything, nor change a
-- detection or a report once stored; partitions it makes only through add_partition() and bring_home(),
-- as the owner's.

DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'mobileye_loader') THEN
        CREATE ROLE mobileye_loader LOGIN NOINHERIT;    -- and nothing that is not granted below
    END IF;
    -- TEMPORARY: if some rows exist already, all are compared in a temporary table.
    EXECUTE format('GRANT CONNECT, TEMPORARY ON DATABASE %I TO mobileye_loader', current_database());
END
$$;

REVOKE CREATE ON SCHEMA public FROM PUBLIC;     -- the default since PostgreSQL 15

GRANT USAGE ON SCHEMA mobileye_data TO mobileye_loader;
GRANT USAGE ON SEQUENCE mobileye_data.file_ids TO mobileye_loader;

GRANT SELECT, INSERT ON
    mobileye_data.ingested_files,
    mobileye_data.rejected_records,
    mobileye_data.ledger_name,
    mobileye_data.stream_positions,
    mobileye_data.stream_gaps
TO mobileye_loader;

GRANT SELECT ON mobileye_data.dropped_rows TO mobileye_loader;

-- The tables of records; beside a table x_history may be x, with the newest row of each vehicle.
DO $$
DECLARE
    parent text;
    latest text;
    columns text;
BEGIN
    FOR parent IN SELECT * FROM mobileye_data.record_tables() LOOP
        EXECUTE format('GRANT SELECT, INSERT ON mobileye_data.%I TO mobileye_loader', parent);
        latest := regexp_replace(parent, '_history$', '');
        IF latest <> parent AND to_regclass(format('mobileye_data.%I', latest)) IS NOT NULL THEN
            SELECT string_agg(format('%I', attname), ', ') INTO columns
            FROM pg_attribute
            WHERE attrelid = format('mobileye_data.%I', latest)::regclass
              AND attnum > 0 AND NOT attisdropped AND attname <> 'vehicle_id';
            EXECUTE format('GRANT SELECT, INSERT, UPDATE (%s) ON mobileye_data.%I TO mobileye_loader',
                           columns, latest);
        END IF;
    END LOOP;
END
$$;

GRANT SELECT ON
    mobileye_data.detections_by_hour,
    mobileye_data.vehicles_by_status,
    mobileye_data.vehicle_timeline,
    mobileye_data.open_rejects,
    mobileye_data.rejects_by_reason,
    mobileye_data.ledger_totals,
    mobileye_data.rows_in_other,
    mobileye_data.dropped_days
TO mobileye_loader;

GRANT SELECT, INSERT, UPDATE (detections, objects) ON mobileye_data.detections_hourly TO mobileye_loader;

-- A failed file may be loaded later, and any may come again.
GRANT UPDATE (file_id, last_name, kind, state, rows_read, rows_inserted, rows_duplicate, rows_rejected,
              started_at, finished_at, deliveries, error, dismissed_at, dismissed_by, extra,
              elements_empty, origin, origin_version)
    ON mobileye_data.ingested_files TO mobileye_loader;

GRANT UPDATE (next_offset, moved_at) ON mobileye_data.stream_positions TO mobileye_loader;

-- A replay resolves a record, or says anew why it can't; the original it can't touch.
GRANT UPDATE (path, reason, detail, edited, resolved_at, resolved_by)
    ON mobileye_data.rejected_records TO mobileye_loader;

REVOKE EXECUTE ON FUNCTION
    mobileye_data.add_partition(text, date),
    mobileye_data.bring_home(text, bigint),
    mobileye_data.fold_totals(),
    mobileye_data.recount_totals()
FROM PUBLIC;
GRANT EXECUTE ON FUNCTION
    mobileye_data.add_partition(text, date),
    mobileye_data.bring_home(text, bigint),
    mobileye_data.fold_totals()
TO mobileye_loader;

-- With RETENTION_DAYS the daemon drops old days. This role may not. Either run "maintain" as the owner once a day, or
-- let the role drop any day:
-- GRANT EXECUTE ON FUNCTION mobileye_data.begin_drop(text, date), mobileye_data.drop_day(text, date),
--     mobileye_data.drop_strays(text, date, bigint)
-- TO mobileye_loader;
