"""What the normalizer believes of a row: bounds, lasting shifts, bad labels; pure numpy."""
