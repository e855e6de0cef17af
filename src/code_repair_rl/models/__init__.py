"""Fetch the embedded model, load any model, merge and export."""
