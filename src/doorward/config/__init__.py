"""The policy file to objects, every mistake with file and line. Reads files; opens no socket."""
