"""What counts as equal: gates S, P and D, on cases that can fail, against code that nobody here wrote."""
