"""Operating system: file names, atomic writes, locks between processes, signals, terminals."""
