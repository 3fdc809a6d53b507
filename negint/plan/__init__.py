"""What a run would take, measured before it is run: memory, time, arithmetic, files."""
