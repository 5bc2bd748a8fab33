"""The procedural head factory: `identity(seed)` and `build_head(identity)` here, pictures in `renderer.py`."""
