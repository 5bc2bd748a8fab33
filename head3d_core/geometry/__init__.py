"""Surfaces, textures, point clouds, turntables and their files."""
