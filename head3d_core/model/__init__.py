"""The method's networks and rendering: cameras, planes, volume rendering, StyleGAN2, generator, discriminator."""
