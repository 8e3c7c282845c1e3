"""Serving: a run answers requests over HTTP; what waits is bounded, and predicted in batches."""
