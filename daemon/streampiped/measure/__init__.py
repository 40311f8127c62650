"""How good the predictions were: mergeable sums, and the report made of them; pure numpy."""
