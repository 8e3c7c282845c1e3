"""From which score an image counts as the class: bounds, choice, calibration."""
