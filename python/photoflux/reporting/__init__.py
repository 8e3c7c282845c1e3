"""Reports: a run as one page."""
