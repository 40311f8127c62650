"""What the pipeline costs beside a loop in one process and beside other ways to run the same stages."""
