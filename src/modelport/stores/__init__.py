"""What survives a restart: the port is :mod:`.base`; :mod:`.tasks` has SQLite behind it."""
