"""Programs that run inside the jails. They import the standard library only and are sent in as source text."""
