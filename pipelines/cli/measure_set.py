"""`python -m pipelines measure-set`: a whole set of pictures against real ones.

A command of its own and no measure of a study: its values belong to a set and not to a picture, so
they have no pairs. A study's report has them beside its pairs.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from pipelines.cli.output import Interrupt, Json, print_json, print_table
from pipelines.engine import Engine
from pipelines.sets.compare import PAINTED, compare_set, folder_pictures, study_sets
from pipelines.sets.features import JUDGE, NETWORKS
from pipelines.sets.measures import FEWEST
from pipelines.study.design import logged_study
from pipelines.study.rows import study_row


def measure_set(
    source: Annotated[str, typer.Argument(
        metavar="FOLDER|STUDY", help="A folder of pictures, or the id of a study, each of whose "
        "methods is a set.")],
    against: Annotated[str, typer.Option(
        metavar="painted|FOLDER", help="The real pictures: as many of the painter, which are the "
        "truth of the bundled models, or a folder's.")] = PAINTED,
    measure: Annotated[str, typer.Option(
        metavar="NAMES", help="Some of " + ", ".join(
            f"{name} (from {count} pictures on)" for name, count in FEWEST.items()) + ".")]
    = ",".join(FEWEST),
    features: Annotated[str, typer.Option(
        metavar="|".join(NETWORKS), help="What looks at the pictures: the judge of the bundled "
        "models, or the CLIP that is on this machine.")] = JUDGE,
    as_json: Json = False,
) -> None:
    """Measure a set of pictures: kernel distance (KID), precision, recall, density, coverage, and
    copies of training pictures, with 95 % intervals."""
    names = tuple(filter(None, measure.replace(" ", "").split(",")))
    with Interrupt() as interrupt:
        engine = Engine()
        real = None if against == PAINTED else folder_pictures(Path(against))
        if not Path(source).is_dir() and study_row(engine.run_log, source):
            from pipelines.study.findings import WatchedStudy

            findings = WatchedStudy(engine, logged_study(engine.run_log, source)).look()
            sets = study_sets(engine, findings, names, real, features, interrupt.check)
        else:
            pictures = folder_pictures(Path(source))
            sets = [(source, compare_set(pictures, real, names, features,
                                         engine.registry.device, interrupt.check))]
    if as_json:
        print_json([{"set": name, **asdict(value)} for name, values in sets for value in values])
    else:
        print_table(["set", "measure", "value", "low", "high", "expected", "pictures", "real"],
                    [[name, v.measure, f"{v.value:.3f}", f"{v.low:.3f}", f"{v.high:.3f}",
                      "" if v.expected is None else f"{v.expected:.3f}", v.pictures, v.real]
                     for name, values in sets for v in values])
