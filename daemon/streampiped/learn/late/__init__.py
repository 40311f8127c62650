"""Labels that come later than their questions: what waits for them, and what is made of them when they come."""
