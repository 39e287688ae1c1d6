"""The plan of a run: the stages that are out of date, and about how long each takes on this machine."""
