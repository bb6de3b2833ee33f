"""The options of `train`, method by method, and what they are where they are not given."""

from __future__ import annotations

from argparse import BooleanOptionalAction
from dataclasses import replace

from tutorial_lib import profiles

HELP = {
    "oft": "orthogonal fine-tuning of a subject",
    "coft": "the same, with a bound on how far the weights may turn",
    "lora": "LoRA of a subject, by peft",
    "dreambooth": "the whole UNet learns a subject",
    "textual-inversion": "a new word learns a subject, the model stays as it is",
    "custom": "Custom Diffusion: keys, values and a new word",
    "control": "a control: pictures that follow edges or maps",
}
NEW_WORD = ("textual-inversion", "custom")


def add(commands, run) -> None:
    """`train METHOD`, carried out by `run(options)`."""
    parser = commands.add_parser("train", help="train a method on a folder of pictures")
    methods = parser.add_subparsers(dest="method", required=True, metavar="METHOD")
    for method in profiles.METHODS:
        _add_method(methods.add_parser(method, help=HELP[method], description=f"{HELP[method]}."), method, run)


def _add_method(parser, method: str, run) -> None:
    _add_data(parser, method)
    _add_settings(parser, method)
    _add_run(parser)
    parser.set_defaults(parser=parser, run=run, needs=("output",) if method == "control" else ("pictures", "output"))


def _add_data(parser, method: str) -> None:
    parser.add_argument("--profile", help="pocket (default), sd15, a hub id such as name/model, or a folder")
    parser.add_argument("--pictures", metavar="FOLDER", help="what to learn; captions in .txt files beside them")
    parser.add_argument("--template", help="caption of a picture without a .txt; {folder} and {name} may stand in it")
    if method == "control":
        parser.add_argument("--kind", choices=("edges", "contours", "segmentation", "landmarks"), help="default: edges")
        parser.add_argument("--controls", metavar="FOLDER", help="control pictures, named as the pictures")
        parser.add_argument("--scenes", type=int, help="without --pictures: so many scenes of the pocket world")
        parser.add_argument("--branch", choices=("full", "lite", "gaussian", "oft"), help="default: full, a ControlNet")
        parser.add_argument(
            "--hint-encoder", choices=("code", "gaussian"), help="its first weights; default: profile's"
        )
        parser.add_argument("--drop-prompt", type=float, help="share of prompts left empty; default: 0.5")
        parser.add_argument("--noisier", type=float, help="how much more often noisy time steps come; 0: all alike")
        parser.add_argument("--half", action=BooleanOptionalAction, help="a file of half the size, in half precision")
        return
    parser.add_argument("--token", help="the subject's word; default: <new1> if it is learned, else sks")
    parser.add_argument("--class", dest="class_word", metavar="WORD", help="what the subject is one of: cat")
    parser.add_argument(
        "--prior", type=int, metavar="N", help="with --class: pictures that the model draws of it; 0 for none"
    )
    parser.add_argument("--prior-pictures", metavar="FOLDER", help="your own pictures of the class instead")
    parser.add_argument("--prior-weight", type=float, help="default: 1")


def _add_settings(parser, method: str) -> None:
    parser.add_argument("--steps", type=int)
    parser.add_argument("--lr", type=float, help="learning rate")
    parser.add_argument("--batch-size", type=int, help="pictures in one forward pass")
    parser.add_argument("--accumulation", type=int, help="forward passes a step, in each process")
    parser.add_argument("--warmup", type=int, help="steps over which the learning rate rises; default: 0")
    parser.add_argument("--ema", type=float, help="decay of a running mean of the weights, which is kept; 0 for none")
    parser.add_argument("--precision", choices=("no", "bf16", "fp16"))
    parser.add_argument("--gradient-checkpointing", action=BooleanOptionalAction, help="less memory, more time")
    parser.add_argument("--seed", type=int, help="default: 0")
    if method in ("oft", "coft", "control"):
        parser.add_argument("--block-size", type=int, help="of the rotations")
    if method == "coft":
        parser.add_argument("--eps", type=float, help="the bound; 0.05 is about six degrees")
    if method == "lora":
        parser.add_argument("--rank", type=int)
    if method in NEW_WORD:
        parser.add_argument("--init", help="the word that the new one starts from; default: ktn")
    if method == "custom":
        parser.add_argument("--augment", action=BooleanOptionalAction, help="pictures in other sizes; default: yes")


def _add_run(parser) -> None:
    parser.add_config()
    parser.add_argument("--output", metavar="FOLDER", help="for the weights and all that comes with them")
    parser.add_argument("--checkpoints", metavar="FOLDER", help="default: in the output; on Colab a folder on Drive")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint, with the settings beside it")
    parser.add_argument("--force", action="store_true", help="set aside what is in the output, and begin anew")
    parser.add_argument("--save-every", type=int, metavar="STEPS", help="a checkpoint; default: 50")
    parser.add_argument("--every", type=int, metavar="STEPS", help="figures and sample pictures; default: a tenth")
    parser.add_argument("--prompts", nargs="+", metavar="PROMPT", help="of the sample pictures")
    parser.add_argument("--sampling-steps", type=int, help="of the sample pictures and of the class's")
    parser.add_argument("--guidance", type=float, help="of the sample pictures")
    parser.add_argument("--tracker", help="such as tensorboard, through accelerate; its logs go to the checkpoints")


def with_defaults(options, pipe, processes: int):
    """All settings: what was given, else the profile's."""
    profile = profiles.of(pipe)
    options.processes = processes
    own = hasattr(options, "prior_pictures")
    if not hasattr(options, "prior"):
        options.prior = profile.recipes[options.method].prior if hasattr(options, "class_word") and not own else 0
    plan = profiles.plan(profile, options.method, profiles.gpu(pipe.device), own or options.prior > 0, processes)
    if hasattr(options, "batch_size"):  # the plan's accumulation belongs to its own
        plan = replace(plan, accumulation=1)
    steps = getattr(options, "steps", plan.steps)
    defaults = {
        **vars(plan), "warmup": 0, "seed": 0, "prior_weight": 1.0, "init": "ktn", "augment": True,
        "token": "<new1>" if options.method in NEW_WORD else "sks", "rank": profile.rank,
        "block_size": profile.block_size, "eps": profile.eps, "ema": profile.ema, "kind": "edges", "scenes": 2000,
        "branch": "full", "drop_prompt": 0.5, "half": False, "hint_encoder": profile.hint_encoder,
        "noisier": profile.noisier, "save_every": 50, "every": max(1, steps // 10),
        "sampling_steps": profile.sampling_steps, "guidance": profile.guidance, "watched": 4,
    }  # fmt: skip
    for name, value in defaults.items():
        if not hasattr(options, name):
            setattr(options, name, value)
    return options
