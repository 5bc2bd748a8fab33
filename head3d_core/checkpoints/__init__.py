"""Weights: one reader and writer of ours, and the reader of EG3D's pickles."""
