"""Sound bounds of what networks say in a whole box of inputs, and what follows from them."""
