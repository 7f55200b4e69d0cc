"""What the server is compared with: the least that a bare uvicorn, or no server at all, does."""
