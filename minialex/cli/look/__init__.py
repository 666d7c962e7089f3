"""``minialex look …``: look inside a trained network; one file per command."""

from __future__ import annotations

import typer

from minialex.cli.help import Groups
from minialex.cli.look.activations import activations
from minialex.cli.look.excite import excite
from minialex.cli.look.kernels import kernels
from minialex.cli.look.map import map_
from minialex.cli.look.maximise import maximise
from minialex.cli.look.neighbours import neighbours
from minialex.cli.look.occlusion import occlusion
from minialex.cli.look.saliency import saliency
from minialex.cli.look.translation import translation
from minialex.cli.options import options

app = typer.Typer(
    help="Look inside a trained network: its kernels and activations, what it relies on, what it finds similar.",
    cls=Groups,
    rich_markup_mode=None,
)
for command in (kernels, activations, occlusion, saliency, translation, excite, maximise, neighbours):
    app.command()(options(command))
app.command("map")(options(map_))


@app.callback(invoke_without_command=True)
def _help(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
