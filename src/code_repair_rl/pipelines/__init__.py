"""Whole journeys over all rooms."""
