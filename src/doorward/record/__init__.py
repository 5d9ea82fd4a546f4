"""Decision records: one for every attempt, written in batches off the data path, kept within bounds."""
