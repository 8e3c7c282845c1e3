"""The Flux engine: Julia in this process."""
