"""What follows from runs for the sentences of the papers: holds, weak, fails or undecided."""
