"""Faster ways to run layers: operators with their definition in torch and a kernel for a GPU, and what uses them."""
