"""online learning; pure numpy and scikit-learn."""
