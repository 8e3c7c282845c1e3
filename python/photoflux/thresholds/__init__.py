"""Thresholds: the score from which an image is predicted as the positive class, and calibration."""
