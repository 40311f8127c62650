"""one source connector per file, behind the contract of stages.base."""
