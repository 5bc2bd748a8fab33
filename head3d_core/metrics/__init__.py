"""Measures: distances between sets of images, identity, silhouettes, accessories."""
