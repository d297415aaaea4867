"""What other programs know of models, as models of ours. Files are read where they are; nothing is copied."""
