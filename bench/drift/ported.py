"""Stands for the file of a wrong port: it holds none of the right classes, which an explanation could fall back on."""
