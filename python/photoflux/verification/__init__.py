"""The proof: both engines compute the same numbers, shown check by check on the user's own machine and data."""
