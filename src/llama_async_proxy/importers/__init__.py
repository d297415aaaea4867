"""Importers: plan and apply the registration of models of other programs. Model files are not copied."""
