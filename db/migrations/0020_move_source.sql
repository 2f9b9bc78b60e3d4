-- A move knows more of what it copies: it begins again.

DROP TABLE IF EXISTS mobileye_data.moves CASCADE;
