"""Comparison of variants: the same seeds for all, confidence intervals, and the choice of one."""
