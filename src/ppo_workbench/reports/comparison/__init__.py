"""The page of a comparison, or of one model beside its references."""
