"""The Keras engine: the reference, in a process of its own."""
