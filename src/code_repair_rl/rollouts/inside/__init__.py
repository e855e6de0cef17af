"""Programs that run inside the jails of agents."""
