"""Files of a run: checkpoints, fields and histories."""
