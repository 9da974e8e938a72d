"""Judge: what the runs of a sweep say. Reads MLflow, writes nothing there, imports no torch."""
