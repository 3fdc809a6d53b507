"""A run's folder and life: its files, checkpoints, records, locks and interruptions."""
