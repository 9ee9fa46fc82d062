"""vaeport: native VAEs for diffusion models, and the proof that they equal their originals."""
