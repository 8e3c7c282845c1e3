"""Shows uncertain images, and likely label errors of a run's data, on a local page, and keeps a person's labels."""
