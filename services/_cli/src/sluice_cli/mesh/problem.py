"""What the person at the keyboard has to know: one clear sentence, and what to do about it."""


class MeshProblem(Exception):
    """Something that keeps a command from doing its work. The message is printed as it is; the command exits with 1."""
