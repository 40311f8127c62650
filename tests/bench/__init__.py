"""What the learning is worth: streams through the pipeline, side by side with others (`make bench-learning`)."""
