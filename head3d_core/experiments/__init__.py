"""Studies that are not in the tables: plane swap, latent space, inversion, fitted planes, parametric baselines."""
