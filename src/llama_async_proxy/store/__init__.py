"""The database and the configuration file: everything the service remembers. Nothing outside this room knows SQL."""
