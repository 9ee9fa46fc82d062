"""How the VAE that comes with the package was trained."""
