"""Storage: the database and files. Only this package knows SQL."""
