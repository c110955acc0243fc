"""Datasets with their splits, and the views of them where students meet the teacher."""
