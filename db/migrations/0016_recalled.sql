-- A file may be recalled.

ALTER TABLE IF EXISTS mobileye_data.ingested_files
    ADD COLUMN IF NOT EXISTS recalled_at timestamptz,
    ADD COLUMN IF NOT EXISTS recalled_by text,
    ADD COLUMN IF NOT EXISTS rows_recalled bigint,
    DROP CONSTRAINT IF EXISTS ingested_files_state_check,
    ADD CONSTRAINT ingested_files_state_check CHECK (state IN ('loaded', 'failed', 'recalled'));
