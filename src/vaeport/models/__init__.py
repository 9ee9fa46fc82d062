"""The tables: one file per architecture, each its arch config, its encoder and decoder, and its latent contract."""
