"""Runs: training, scores, prediction, export and import; a run is the folder with one training."""
