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


class ClusterError(PipelineError):
    """There is no cluster, or no device of it that can do the work."""


class StorageError(PipelineError):
    """A picture or a row could not be written or read."""


class HubError(PipelineError):
    """The Hub cannot be reached, said no, or sent something broken."""


class OfflineError(HubError):
    """There is no way to the Hub: offline by choice, or no connection."""


class GatedError(HubError):
    """The model's conditions must be accepted first; says where and how."""


class ProviderError(PipelineError):
    """A provider of hosted models cannot be reached, said no, or sent no picture."""


class RefusedError(PipelineError):
    """A repository holds nothing that is opened here; says why."""


class Cancelled(PipelineError):
    """The user stopped the run."""


class NoFurther(Cancelled):
    """The user wants no further picture begun; those that have begun come to their end first."""


def first_line(error: Exception) -> str:
    """The start of another library's message, with what follows a colon at its end; the name of
    its class where it has none."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[0] if lines else type(error).__name__
    for line in lines[1:]:
        if not text.endswith(":"):
            break
        text = f"{text} {line}"
    return text[:300]
