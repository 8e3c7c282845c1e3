"""Which variant, and why: the same seeds for all, intervals, a decision on the validation part."""
