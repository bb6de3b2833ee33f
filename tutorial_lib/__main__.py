"""The command line: `python -m tutorial_lib pretrain PART --minutes N [--resume]`."""

from __future__ import annotations

import argparse

PARTS = ("clip", "vae", "judge", "unet", "decoder", "all")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tutorial_lib")
    commands = parser.add_subparsers(dest="command", required=True)
    pretrain = commands.add_parser("pretrain", help="train a part of the pocket model from nothing")
    pretrain.add_argument("part", choices=PARTS)
    pretrain.add_argument("--minutes", type=float, help="computing time of the part; default: as the shipped model")
    pretrain.add_argument("--resume", action="store_true", help="go on from the last checkpoint or the shipped weights")
    return parser


def main(arguments: list[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    from tutorial_lib.pocket.pretrain import run

    run.pretrain(options.part, options.minutes, options.resume)


if __name__ == "__main__":
    main()
