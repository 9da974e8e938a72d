"""Choose: one file is one question; ``launch`` runs what it asks for."""
