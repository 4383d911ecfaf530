"""What all trainings share: the loop over epochs, checkpoints, devices."""
