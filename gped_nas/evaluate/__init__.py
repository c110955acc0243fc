"""How good a predictor is: metrics with their sizes and intervals, and paired differences."""
