"""The object model at work: sessions, connections, event dispatch, chains of data filters."""
