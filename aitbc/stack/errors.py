"""What the embedded servers refuse."""


class StackError(Exception):
    """An embedded server could not be started, reached or stopped; the message is meant for a person."""
