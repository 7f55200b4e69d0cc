"""What survives a restart: the ports are in :mod:`.base`, SQLite behind them in the other files."""
