"""Pages: of a comparison or a model, of a study, of a promotion; self-contained HTML."""
