"""Views of the record of a port: the packets, hand-overs and status files of the workflow, each derived from it."""
