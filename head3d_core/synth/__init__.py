"""The procedural head factory: `identity(seed)` and `build_head(identity)` here, images in `renderer.py`."""
