"""Verdict and text to one number, or None."""
