"""Errors whose message is shown to the user as it stands."""


class PipelineError(Exception):
    """Something a user can understand and act on."""


class RequestError(PipelineError):
    """A request, an axis or an option is not valid; says what was received and what would work."""


class UnknownModelError(PipelineError):
    """No model goes by that id on this machine."""


class LoadError(PipelineError):
    """A model is there but cannot be opened."""


class DeviceMemoryError(PipelineError):
    """The device ran out of memory."""


class StorageError(PipelineError):
    """A picture or a row could not be written or read."""


class Cancelled(PipelineError):
    """The user stopped the run."""
