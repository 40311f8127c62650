"""A model given to others: as plain numbers, as one formula, and as files of other programs."""
