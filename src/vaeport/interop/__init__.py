"""Native VAEs in other libraries' programs."""
