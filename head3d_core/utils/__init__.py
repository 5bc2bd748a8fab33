"""Errors, files, images, records, devices: what every other folder may use."""
