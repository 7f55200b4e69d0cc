"""What one kind of server wants to hear, as generators: a file for each kind."""
