"""The example model repository: its sources, and what makes it from them."""
