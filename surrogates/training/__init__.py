"""The parts common to all trainings: options, the split of data, the loop over epochs, checkpoints."""
