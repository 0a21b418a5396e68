"""Says in a method's own terms what it does that the suite can't train, score or reproduce.

A contract is a function that yields a line for everything that is wrong, and a `Note` for what is
allowed but may be a slip, such as a term that a method leaves out. `reductions` holds losses of
joint-matching methods to their contracts, `images` methods of images, and `metrics` metrics. The
suite's own methods keep the same contracts, without a note.
"""
