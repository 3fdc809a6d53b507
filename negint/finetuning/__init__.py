"""Fine-tuning a pretrained model on a task (Section 3.2)."""
