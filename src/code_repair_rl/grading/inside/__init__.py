"""What runs in the two jails of a function check. Standard library only; sent in as source text."""
