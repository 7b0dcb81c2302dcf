"""The engine of Contact Sheet: requests, models, schedulers, runs, comparisons; no Streamlit.

Importing this package imports neither torch nor diffusers; the first run does.
"""

from pipelines.axes import Axis, parse_axis
from pipelines.comparison import Cell, Comparison
from pipelines.engine import Engine
from pipelines.errors import PipelineError, RequestError
from pipelines.log_tables import Run
from pipelines.notebook import ComparisonResult, compare
from pipelines.queue import Job, JobQueue
from pipelines.request import RunRequest
from pipelines.run_log import RunLog
from pipelines.schedulers import CATALOGUE, SchedulerInfo

__version__ = "0.1.0"
__all__ = [
    "CATALOGUE", "Axis", "Cell", "Comparison", "ComparisonResult", "Engine", "Job", "JobQueue",
    "PipelineError", "RequestError", "Run", "RunLog", "RunRequest", "SchedulerInfo", "compare",
    "parse_axis",
]  # fmt: skip
