"""Members that predict classes, one file per kind."""
