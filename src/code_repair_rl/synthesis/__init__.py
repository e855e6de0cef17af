"""Where new tasks come from."""
