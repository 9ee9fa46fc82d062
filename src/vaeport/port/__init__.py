"""Porting one VAE component: its record and the views of it, reuse proof, conversion, parity, hand-over."""
