"""effects: they know how, never why."""
