"""What people look at: the HTML report, live display and experiment trackers."""
