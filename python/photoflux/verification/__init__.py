"""Verification: both engines compute the same numbers, check by check, on the user's machine and data."""
