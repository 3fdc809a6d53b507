"""What runs many runs: the study, the benchmark, SLURM and Colab."""
