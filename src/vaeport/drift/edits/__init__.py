"""Changes to a native model that may be the one that is missing: each can be made, tried, and taken back."""
