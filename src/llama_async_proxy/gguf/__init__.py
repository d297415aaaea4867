"""Model files: bytes to facts, and a writer for models of our own. Reads and writes only the file it is given."""
