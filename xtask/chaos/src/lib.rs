//! A proxy that delays, loses, reorders, duplicates and cuts. Nothing yet.
