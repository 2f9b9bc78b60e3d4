-- Where a file came from, if not from a folder.

ALTER TABLE IF EXISTS mobileye_data.ingested_files
    ADD COLUMN IF NOT EXISTS origin text,
    ADD COLUMN IF NOT EXISTS origin_version text;
