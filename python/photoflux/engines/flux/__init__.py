"""The Flux engine: the Julia package in this process."""
