"""The coordinator: its keys, its server and its sites."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="The coordinator: its keys, its server and its sites.", no_args_is_help=True,
                  add_completion=False)  # fmt: skip
site = typer.Typer(help="The enrolled sites.", no_args_is_help=True)
app.add_typer(site, name="site")

Home = Annotated[Path, typer.Option(help="The coordinator's folder.", envvar="FEDSCAN_SERVER_HOME")]
Keys = Annotated[
    Path | None, typer.Option(help="Folder of the offline keys, when not in the home.", show_default=False)
]
PassphraseFile = Annotated[
    Path | None,
    typer.Option(help="File with the passphrase, for scripts; else it is asked for.", envvar="FEDSCAN_PASSPHRASE_FILE",
                 show_default=False),
]  # fmt: skip
Yes = Annotated[
    str | None,
    typer.Option("--yes", metavar="FINGERPRINT", help="Do not ask: go on if this is the fingerprint.",
                 show_default=False),
]  # fmt: skip
DEFAULT_HOME = Path("fedscan-server")
RequestFile = Annotated[
    Path, typer.Argument(metavar="REQUEST", help="The file that the site sent.", show_default=False)
]


class LogForm(StrEnum):
    """How the log is written."""

    TEXT = "text"
    JSON = "json"


SiteName = Annotated[str, typer.Argument(metavar="NAME", help="The site's name.", show_default=False)]
Out = Annotated[Path | None, typer.Option(help="The join file to write; else NAME.join.", show_default=False)]


@app.command()
def init(
    host: Annotated[list[str], typer.Option(help="DNS name or address of the server; the first is given to sites.")],
    ip: Annotated[list[str] | None, typer.Option(help="Further addresses.", show_default=False)] = None,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the server.")] = 8443,
    home: Home = DEFAULT_HOME,
    passphrase_file: PassphraseFile = None,
    allow_weak_passphrase: Annotated[
        bool, typer.Option("--allow-weak-passphrase", help="For trials: a short passphrase or none.")
    ] = False,
) -> None:
    """Make the coordinator's keys and certificates."""
    from server.enrolment.identity import create
    from server.enrolment.passphrase import new_passphrase

    made = create(home, [*host, *(ip or [])], port, new_passphrase(passphrase_file, allow_weak_passphrase))
    typer.echo(f"{home}: the coordinator {host[0]} is made")
    typer.echo(f"  fingerprint {made.fingerprint()} (hospitals compare it by telephone)")
    typer.echo(f"  {home / 'offline'} holds the keys that issue certificates and sign studies: keep a copy elsewhere;")
    typer.echo("  the running server does not need it. Next: fedscan server backup FILE")


@app.command()
def start(
    home: Home = DEFAULT_HOME,
    foreground: Annotated[
        bool, typer.Option("--foreground", help="Stay in this terminal (for systemd and containers).")
    ] = False,
    listen: Annotated[
        str, typer.Option(help="Address to listen on; :: for IPv6.", envvar="FEDSCAN_SERVER_LISTEN")
    ] = "0.0.0.0",  # noqa: S104 - hospitals come from outside, with certificates
    port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="Port to listen on, when not the one of `init`; 0 for a free one.",
                     envvar="FEDSCAN_SERVER_PORT", show_default=False),
    ] = None,
    health_http: Annotated[
        int, typer.Option(min=0, max=65535, help="Port of /health on 127.0.0.1; 0 for a free one.",
                          envvar="FEDSCAN_HEALTH_HTTP")
    ] = 0,
    health_grpc: Annotated[
        int, typer.Option(min=0, max=65535, help="Port of grpc.health.v1 on 127.0.0.1; 0 for a free one.",
                          envvar="FEDSCAN_HEALTH_GRPC")
    ] = 0,
    log: Annotated[LogForm, typer.Option(help="Form of the log.", envvar="FEDSCAN_LOG")] = LogForm.TEXT,
) -> None:  # fmt: skip
    """Start the server; a run that was under way goes on."""
    from server.service.start import ServerOptions, launch, serve

    options = ServerOptions(home, listen, port, health_http, health_grpc)
    if foreground:
        from common.log import start_log

        start_log(log.value)
        serve(options)
        return
    status = launch(options, log.value)
    typer.echo(f"the server of {home} runs (process {status.pid}); it listens on {status.listen} port {status.port}")
    typer.echo(f"  its log: {home / 'server.log'}. Next: fedscan server status, fedscan run start STUDY")


@app.command()
def stop(home: Home = DEFAULT_HOME) -> None:
    """End the server; the open run goes on with the next start."""
    from server.service.start import stop as end

    end(home)
    typer.echo(f"the server of {home} has ended")


@app.command()
def status(
    home: Home = DEFAULT_HOME, as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False
) -> None:
    """Show sites, runs, refusals and the state of the server."""
    from rich.console import Console

    from server.service.control import ControlClient
    from server.service.terminal import print_status

    with ControlClient(home) as client:
        found = client.status()
    if as_json:
        typer.echo(found.model_dump_json(indent=1))
    else:
        print_status(home, found, Console())
    if not found.well:
        raise typer.Exit(1)


@app.command()
def fingerprint(home: Home = DEFAULT_HOME) -> None:
    """Show the fingerprint that hospitals compare by telephone."""
    from server.enrolment.identity import Coordinator

    typer.echo(Coordinator(home).fingerprint())


@app.command()
def renew(
    host: Annotated[
        list[str] | None, typer.Option(help="New DNS names or addresses, if they changed.", show_default=False)
    ] = None,
    home: Home = DEFAULT_HOME,
    keys: Keys = None,
    passphrase_file: PassphraseFile = None,
) -> None:
    """Issue a new certificate for the server."""
    from server.enrolment.identity import Coordinator
    from server.enrolment.passphrase import known_passphrase

    coordinator = Coordinator(home)
    unlocked = coordinator.unlock(known_passphrase(passphrase_file), keys)
    certificate = coordinator.renew_server_certificate(unlocked, host or ())
    typer.echo(f"{coordinator.tls_certificate_path}: valid until {certificate.not_valid_after_utc:%Y-%m-%d}")


@app.command()
def backup(
    file: Annotated[Path, typer.Argument(help="The file to write.", show_default=False)], home: Home = DEFAULT_HOME
) -> None:
    """Write keys, certificates and enrolled sites to one file, to be kept like a key."""
    from server.enrolment.backup import back_up
    from server.enrolment.identity import Coordinator

    names = back_up(Coordinator(home), file)
    typer.echo(f"{file} written. The online keys in it are not encrypted: keep it as you keep keys.")
    if "offline/signing.pem" not in names:
        typer.echo("The offline keys lie elsewhere and are not in it.")


@app.command()
def restore(
    file: Annotated[Path, typer.Argument(help="A file of `fedscan server backup`.", show_default=False)],
    home: Home = DEFAULT_HOME,
) -> None:
    """Put a backup into a new home."""
    from server.enrolment.backup import restore as put_back

    typer.echo(f"{home}: the coordinator {put_back(file, home).card.hosts[0]} is back")


@site.command()
def add(
    request: RequestFile,
    name: Annotated[
        str | None, typer.Option(help="The site's name; else the proposed one is asked about.", show_default=False)
    ] = None,
    yes: Yes = None,
    out: Out = None,
    home: Home = DEFAULT_HOME,
    keys: Keys = None,
    passphrase_file: PassphraseFile = None,
) -> None:
    """Enrol a site from its request; answers with a join file."""
    from server.enrolment.desk import Desk

    Desk(home, keys, passphrase_file).add(request, name, yes, out)


@site.command("list")
def list_sites(
    home: Home = DEFAULT_HOME, as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False
) -> None:
    """Show the enrolled sites."""
    from server.enrolment.desk import show_sites

    show_sites(home, as_json)


@site.command("renew")
def renew_site(
    name: SiteName,
    request: Annotated[
        Path | None, typer.Option(help="A new request of the site, for new keys.", show_default=False)
    ] = None,
    yes: Yes = None,
    out: Out = None,
    home: Home = DEFAULT_HOME,
    keys: Keys = None,
    passphrase_file: PassphraseFile = None,
) -> None:
    """Issue a new certificate for a site; the old one stays good while the site changes over."""
    from server.enrolment.desk import Desk

    Desk(home, keys, passphrase_file).renew(name, request, yes, out)


@site.command()
def revoke(
    name: SiteName,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    home: Home = DEFAULT_HOME,
) -> None:
    """Shut a site out, at once."""
    from server.enrolment.desk import revoke_site

    revoke_site(home, name, yes)
