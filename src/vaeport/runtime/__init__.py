"""Ways to load and run any VAE; nothing here knows a model by name."""
