"""Data sets in EG3D's format: reader, writer, checks, and the way from portraits to cameras."""
