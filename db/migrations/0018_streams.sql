-- A rejected record may come from a topic.

ALTER TABLE IF EXISTS mobileye_data.rejected_records
    ADD COLUMN IF NOT EXISTS partition integer,
    ADD COLUMN IF NOT EXISTS message_offset bigint,
    ADD COLUMN IF NOT EXISTS message bytea;
