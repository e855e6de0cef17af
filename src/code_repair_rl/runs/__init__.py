"""The run directory: layout, schemas, atomic writes, reading back, and how a run tells the world."""
