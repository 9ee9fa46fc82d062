"""Measures `prove --explain`: faults are put into right VAEs, and what is said of them is scored."""
