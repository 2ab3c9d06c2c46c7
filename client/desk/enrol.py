"""What `fedscan site init` and `fedscan site join` do and say."""

from pathlib import Path

import click

from client.desk.joining import install, read_answer
from client.identity import Identity, make_keys
from common.enrolment import MAX_JOIN_BYTES, check_site_name, request_fingerprint
from common.errors import IdentityError, StudyError
from common.keys import PUBLIC, read_small, write_new
from common.signing import same_fingerprint

SITE_YAML = """\
# What this site says of itself. Nothing here leaves the site.

# The site's name; the coordinator may have given another one, which then stands in federation.json.
name: {name}

# Folder of the cases, or a table (CSV, JSON) that names them.
data: ./scans

# How the cases lie there: auto recognises nnunet, msd, bids, table and folders.
# layout: auto

# If your masks are numbered otherwise than the study's: study label -> your value.
# labels: {{liver: 1, tumour: [2, 3]}}

# A study runs only when somebody here has approved it (fedscan site study list); with approvers: 2, when two have.
# With rule: signer all studies of this federation's coordinator run without that, for so many rounds or days each.
approval: {{approvers: 1}}
# approval: {{rule: signer, rounds: 100, days: 30}}

# Unix group whose members approve, stop and look at what leaves; without it only the user who runs the trainer may.
# operators: {{group: fedscan-operators}}

# auto takes CUDA, else MPS, else the CPU.
# device: auto

# What may leave, whatever a study asks: fewest steps, patches in a step and training cases behind an update, highest
# learning rate; counts below small, and scores over so few cases, are withheld; decimals of scores; what is told of how
# they spread over the cases (none, quartiles, or the worst case's as well).
policy: {{steps: 10, batch: 2, rate: 1, cases: 10, small: 5, digits: 4, spread: quartiles}}

# When work may be done, on this machine's clock; always without it.
# hours: ["20:00-06:00"]

# The largest L2 norm of weights that is taken for a net's (nets that learn have 10 to 10 000); the share of the GPU's
# memory and the threads that may be taken; GB that must stay free on the disk.
# limits: {{norm: 1e6, gpu_memory: 1, threads: 8, disk: 1}}

# A copy of every reply stays in trainer/sent/; what left, and its hash, is always written down.
# egress: {{keep: true}}
"""


def init(home: Path, name: str | None, new_keys: bool) -> None:
    """Make keys and request; write site.yaml when there is none."""
    if name is None:
        if not new_keys:
            raise StudyError("give the site a name: fedscan site init --name oslo")
        name = Identity(home).federation().site
    check_site_name(name)
    request_path = home / f"{name}-request{'-new-keys' if new_keys else ''}.json"
    if request_path.exists():
        raise IdentityError(f"{request_path} exists already; move it away if it is no longer needed")
    request = make_keys(home, name, new_keys)
    write_new(request_path, request, PUBLIC)
    if not (home / "site.yaml").exists():
        write_new(home / "site.yaml", SITE_YAML.format(name=name).encode(), PUBLIC)
        click.echo(f"{home / 'site.yaml'} written: say there where the scans are")
    click.echo(f"{request_path} written: send it to the coordinator. It holds no secret.")
    click.echo(f"  fingerprint {request_fingerprint(request)}")
    click.echo("  The coordinator calls and asks for it. The keys stay here, in link/ and trainer/.")


def join(home: Path, file: Path, yes: str | None, replace: bool) -> None:
    """Check the coordinator's answer, ask, install."""
    answer = read_answer(home, read_small(file, MAX_JOIN_BYTES))
    if yes is not None:
        if not same_fingerprint(yes, answer.fingerprint):
            raise IdentityError(f"the coordinator's fingerprint is {answer.fingerprint}, not {yes}")
    elif not answer.known:
        click.echo(f"{file} makes this site {answer.join.site} in the federation of {answer.join.host}.")
        click.echo(f"  fingerprint of the coordinator: {answer.fingerprint}")
        click.confirm("Does the coordinator read the same to you by telephone?", abort=True)
    joined = install(home, answer, replace)
    click.echo(f"joined {joined.host}:{joined.port} as {joined.site}")
    click.echo(f"  certificate valid until {answer.certificate.not_valid_after_utc:%Y-%m-%d}")
    click.echo(f"  coordinator {answer.fingerprint}")
