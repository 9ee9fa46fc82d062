"""Where the figures in the documentation come from; `python -m bench` measures speed and memory."""
