"""The stages of training: losses, recipes, the trainer, and the command that runs them."""
