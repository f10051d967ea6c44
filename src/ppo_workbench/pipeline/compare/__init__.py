"""Arms on equal terms: cells, their tests, and the document that compares them."""
