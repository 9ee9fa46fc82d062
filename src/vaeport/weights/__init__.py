"""The maps: published key layouts <-> native keys, as data. Same file names as in `models`."""
