"""Studies beside the tables: plane swap, latent space, inversion, fitted planes, parametric baselines."""
