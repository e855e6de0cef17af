"""What a model writes: SEARCH/REPLACE blocks and unified diffs, read and applied exactly, compared by tokens."""
