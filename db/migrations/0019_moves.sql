-- The functions that moved a day under one lock.

DROP FUNCTION IF EXISTS mobileye_data.bring_home(text, bigint);
DROP FUNCTION IF EXISTS mobileye_data.strange_day(text, bigint);
DROP FUNCTION IF EXISTS mobileye_data.make_partition(text, date, boolean);
