"""The parts of the trainer: a task verified, worked on, remembered, and answered."""
