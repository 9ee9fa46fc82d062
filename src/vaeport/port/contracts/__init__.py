"""The words, blocks and rules that the record of a port and all of its views are made of."""
