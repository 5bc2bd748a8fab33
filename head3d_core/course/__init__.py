"""What the notebooks show: figures, exercises, widgets, live training."""
