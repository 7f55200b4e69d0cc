"""One service for two servers; they differ in the import alone."""
