"""``minialex prepare``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from minialex.cli.options import HostsOption, RanksOption, is_launcher


def prepare(
    context: typer.Context,
    source: Annotated[
        Path, typer.Argument(help="folder of the official ImageNet archives, folder of images, or list of files")
    ],
    store: Annotated[Path, typer.Argument(help="the store's folder: a new one, or one that the same command began")],
    validation: Annotated[Path | None, typer.Option(help="validation images, if they are not in SOURCE")] = None,
    words: Annotated[
        Path | None, typer.Option(help="file with the names of the classes, like synset_words.txt")
    ] = None,
    size: Annotated[int, typer.Option(help="rows and columns of the images")] = 256,
    resize: Annotated[
        str, typer.Option(help="how images are made square: one-step, or resize-then-crop as in torchvision")
    ] = "one-step",
    workers: Annotated[int | None, typer.Option(min=1, help="number of processes; default one per processor")] = None,
    ranks: RanksOption = None,
    hosts: HostsOption = None,
) -> int:
    """Make a store of 256 x 256 images for training. If stopped or killed, run it again to continue.

    Ranks are for several machines with a shared disk: each makes some of the shards, with --workers processes of its
    own. However many there are, the store has the same bytes.
    """
    from minialex.data.sets.listing import counted
    from minialex.data.store import prepare as making
    from minialex.data.store import store as stores
    from minialex.engine.opening import cores_of_rank
    from minialex.ranks import joining, launch
    from minialex.screen.formats import duration, plural, shell
    from minialex.screen.terminal import console, metered
    from minialex.training.signals import StopRequest

    if is_launcher(ranks, hosts):
        return launch.start(ranks or 1, hosts, ["minialex", *context.obj])
    group, screen = joining.join(), console()
    screen.quiet = group.rank > 0  # of several ranks one speaks
    with StopRequest(*["SIGUSR1"] * (group.size > 1)) as request:
        try:
            with metered(screen) as meter:
                summary = making.prepare(
                    source, store, size=size, resize=resize, validation=None if validation is None else str(validation),
                    words=None if words is None else str(words), workers=workers or cores_of_rank(group),
                    progress=meter.tell, stop=lambda: request.requested is not None, group=group,
                )  # fmt: skip
        except making.Stopped:
            request.among(group)
            screen.print(f"stopped by {request.requested}; run the same command again to continue.")
            return request.exit_code

    for note in summary.notes:
        screen.print(note)

    def reasons(counts: dict[str, int], file: str) -> str:
        return f"{counted(counts)}; see {store / file}" if counts else "none"

    images = summary.images
    rows = [
        ("store", f"{store} (whole already)" if summary.already else str(store)),
        ("images", f"{images['train']:,} for training, {images['validation']:,} for validation, "
                   f"{plural(summary.classes, 'class')}"),
        ("left out", reasons(summary.left_out, stores.LEFT_OUT)),
        ("not as usual", reasons(summary.treated, stores.TREATED)),
    ]  # fmt: skip
    if summary.missing:
        some = ", ".join(summary.missing[:3]) + (" …" if len(summary.missing) > 3 else "")
        rows.append(("no training image", f"in {len(summary.missing):,} of the classes: {some}"))
    if summary.decoded and summary.seconds > 0:
        processes = plural(summary.workers, "process")
        rate = summary.decoded / summary.seconds
        rows.append(("time", f"{duration(summary.seconds)}, {rate:,.0f} images/s with {processes}"))
    rows.append(("check", shell("minialex", "store", "check", store)))
    if stores.read_manifest(store).size == 256:
        rows.append(("train", shell("minialex", "train", "--recipe", "alexnet-2012", "--data", store)))
    for label, text in rows:
        screen.print(f"{label:<19}{text}")
    return 0
