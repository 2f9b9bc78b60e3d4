-- Columns that tables of version 0.1.0, and of older code, lack.

ALTER TABLE IF EXISTS mobileye_data.ingested_files
    ADD COLUMN IF NOT EXISTS dismissed_at timestamptz,
    ADD COLUMN IF NOT EXISTS dismissed_by text,
    ADD COLUMN IF NOT EXISTS extra jsonb,
    ADD COLUMN IF NOT EXISTS elements_empty bigint NOT NULL DEFAULT 0;

ALTER TABLE IF EXISTS mobileye_data.rejected_records
    ADD COLUMN IF NOT EXISTS edited json,
    ADD COLUMN IF NOT EXISTS resolved_by bigint;
