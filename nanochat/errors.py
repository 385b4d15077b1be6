"""Every error a user can meet, as one tree.

    NanochatError          exit code 1: the work could not be done
    ├── UsageError         exit code 2: the command line or a configuration is wrong
    ├── DataError          a source, a file or a document cannot be used
    ├── TokenizerError     a vocabulary or a tokenizer file cannot be used
    ├── ChatError          a conversation is not well formed
    ├── CheckpointError    a run folder or a checkpoint is missing, damaged or of another version
    │   └── SchemaError    it was written by another version: nothing is damaged, and nothing is passed over
    ├── TrainingError      training can't go on: its numbers are not finite any more
    ├── DeviceError        the machine lacks what was asked for
    ├── RankError          another process of the same run died, or cannot be reached
    ├── BusyError          the queue is full: try again a little later
    │   └── ClosedError    no new work is taken: whoever serves is closing, or has failed
    └── ToolError          a tool refused its input; the message is what the model gets to see

An error says what was expected, what was found and what to do about it, in one line. Assertions are for our own
mistakes; these are for everybody else's.
"""


class NanochatError(Exception):
    """`NanochatError(expected, got, remedy)` prints as "expected ...; got ...; remedy"."""

    exit_code = 1

    def __init__(self, expected: str, got: str = "", remedy: str = "") -> None:
        self.expected, self.got, self.remedy = expected, got, remedy
        parts = [f"expected {expected}", f"got {got}" if got else "", remedy]
        super().__init__("; ".join(" ".join(part.split()) for part in parts if part))


class UsageError(NanochatError):
    exit_code = 2


class DataError(NanochatError):
    pass


class TokenizerError(NanochatError):
    pass


class ChatError(NanochatError):
    pass


class CheckpointError(NanochatError):
    pass


class SchemaError(CheckpointError):
    pass


class TrainingError(NanochatError):
    pass


class DeviceError(NanochatError):
    pass


class RankError(NanochatError):
    pass


class BusyError(NanochatError):
    pass


class ClosedError(BusyError):
    pass


class ToolError(NanochatError):
    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.args = (message,)
