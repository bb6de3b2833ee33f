"""`pretrain PART --minutes N [--resume]`: the pocket model from nothing."""

from __future__ import annotations

PARTS = ("clip", "vae", "judge", "unet", "decoder", "all")


def add(commands) -> None:
    parser = commands.add_parser("pretrain", help="train a part of the pocket model from nothing")
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--minutes", type=float, help="computing time; default: as the shipped model")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint, or train one part on")
    parser.set_defaults(parser=parser, run=run, needs=())


def run(options) -> None:
    from tutorial_lib.pocket.pretrain import run

    run.pretrain(options.part, getattr(options, "minutes", None), getattr(options, "resume", False))
