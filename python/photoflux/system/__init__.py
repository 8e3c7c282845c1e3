"""What stands between us and the operating system: names, atomic files, claims, signals, terminals."""
