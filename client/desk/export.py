"""The command `fedscan data export`."""

from pathlib import Path

import click

from client.data.catalogue import look
from client.data.export.policy import Dates, ExportOptions
from client.data.export.run import export
from client.data.left_out import left_out, remaining
from client.data.memory import Memory
from client.data.named import named_labels
from client.desk.check import bars, opened
from client.site import places
from common.codes import meaning_of, value_of


def run(study_file: Path, site_file: Path, out: Path, dates: Dates, characteristics: bool, faces: bool,
        inspected: bool) -> None:  # fmt: skip
    """Write a de-identified copy of the study's cases and say what was done; raises DataError when none may leave."""
    study, site, home = opened(study_file, site_file)
    options = ExportOptions(dates, characteristics, faces, inspected, named_labels(study.data, site),
                            {value_of(code): meaning_of(code) for code in study.data.codes.values()})  # fmt: skip
    with bars(False) as shown:
        files = shown.of("looking at files")
        found = look(site, len(study.data.channels), study.data.channels, places(home).runs, files)
        memory = Memory(places(home).runs)
        cases = remaining(found.cases, left_out(found.cases, site, memory.digest))
        memory.save()
        record = export(cases, out, site, options, shown.of("writing copies"), home=home)
    click.echo(f"{record.cases} cases of {record.patients} patients, {len(record.files)} files: {out}")
    click.echo(f"{record.profile}; options {', '.join(record.options) or 'none'}; dates {record.dates}")
    for finding in record.findings:
        click.echo(f"stays here: {finding.case}: {finding.what}. {finding.remedy}")
    click.echo("Have a person look at the copy before it leaves: at pictures, and at what stands in free text.")
