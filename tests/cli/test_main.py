"""What is wrong with the input is said in a sentence, with exit code 2, and nothing is left behind."""

import pytest
from PIL import Image

from tutorial_lib.cli import options
from tutorial_lib.pocket.subjects import FOLDER

CAT = FOLDER / "two-tone-cat"


def refused(result, *words: str) -> None:
    code, _, said = result
    assert code == 2 and "Traceback" not in said
    for word in words:
        assert word in said, said


# ------------------------------------------------------------------ options and files of options


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["trian"], ["invalid choice", "train"]),
        (["train", "loar"], ["invalid choice", "lora"]),
        (["train", "lora", "--stpes", "3"], ["unknown option '--stpes'", "'--steps'"]),
        (["train", "lora", "--steps", "many"], ["--steps", "'many'"]),
        (["train", "lora", "--eps", "1"], ["unknown option '--eps'"]),  # it is COFT's
        (["train", "lora"], ["--pictures is missing"]),
        (["train", "lora", "--pictures", CAT], ["--output is missing"]),
        (["generate", "--output", "x"], ["--prompts is missing"]),
        (["convert", "--weights", "x", "--to", "lycoris"], ["invalid choice", "peft"]),
    ],
)
def test_options_that_cannot_be_understood(command, words, expected):
    refused(command(*words), *expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("stpes = 3", ["unknown key 'stpes'", "'steps'"]),
        ("force = true", ["unknown key 'force'"]),  # never by a file
        ('steps = "many"', ["--steps", "'many'"]),
        ("steps = 2.5", ["--steps"]),
        ("steps = 1979-05-27", ["'steps' must be text, a number"]),
        ("steps = ", ["is not TOML"]),
        ('precision = "fp8"', ["fp8", "bf16"]),
    ],
)
def test_a_file_that_cannot_be_understood_is_named(command, tmp_path, text, expected):
    file = tmp_path / "run.toml"
    file.write_text(text)
    refused(command("train", "lora", "--config", file), str(file), *expected)


def test_a_file_that_is_not_there(command):
    refused(command("train", "lora", "--config", "nowhere.toml"), "there is no file nowhere.toml")


def test_the_command_line_wins_over_the_file(tmp_path):
    file = tmp_path / "run.toml"
    file.write_text(
        'steps = 5\nclass = "cat"\nbatch-size = 3\ngradient_checkpointing = false\nprompts = ["a b", "c"]\n'
    )
    from tutorial_lib.cli.main import _parser

    given = options.parse(_parser(), ["train", "lora", "--steps", "7"])
    got = options.complete(given, file)
    assert (got.steps, got.class_word, got.batch_size, got.gradient_checkpointing) == (7, "cat", 3, False)
    assert got.prompts == ["a b", "c"] and got.method == "lora" and not hasattr(got, "lr")


@pytest.mark.parametrize("value", ['with "quotes" and \\ and ü', 1e-05, 3, True, ["a", 'b "c"']])
def test_what_is_written_is_read_again(tmp_path, value):
    options.write({"key": value}, tmp_path / "a" / "b.toml", "a comment")
    assert options.read(tmp_path / "a" / "b.toml") == {"key": value}


# ------------------------------------------------------------------ folders, models, weights


@pytest.mark.parametrize(
    ("folder", "expected"), [("nowhere", "there is no folder"), ("empty", "is empty"), ("texts", "no picture in")]
)
def test_folders_without_pictures(command, tiny, tmp_path, folder, expected):
    (tmp_path / "empty").mkdir()
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.jpg").write_text("no picture")
    words = ["--pictures", tmp_path / folder, "--profile", tiny, "--output", tmp_path / "out"]
    refused(command("train", "lora", *words), expected)
    assert not (tmp_path / "out").exists()


def test_a_hub_model_that_cannot_be_had(command, tmp_path, monkeypatch):
    words = ["train", "lora", "--pictures", CAT, "--output", tmp_path / "out", "--profile"]
    refused(command(*words, "sd15"), "needs a GPU", "stay on the pocket model")
    refused(command(*words, "sd-15"), "unknown profile", "Did you mean 'sd15'")
    with monkeypatch.context() as with_gpu:
        with_gpu.setattr("torch.cuda.is_available", lambda: True)
        refused(command(*words, "nobody/no-such-model"), "hub cannot be reached")
    refused(command("generate", "--prompts", "a cat", "--profile", "nobody/none", "--output", tmp_path / "out"), "hub")
    assert not (tmp_path / "out").exists()


def test_a_caption_that_does_not_name_the_subject(command, tiny, tmp_path):
    words = ["--pictures", CAT, "--profile", tiny, "--output", tmp_path / "out"]
    refused(command("train", "lora", *words, "--class", "dog"), "'a photo of a cat on a beach'", "'dog'")
    refused(command("train", "lora", *words, "--prior", 3), "--prior needs --class")


def test_a_tracker_that_is_not_installed(command, brief, tmp_path, monkeypatch):
    monkeypatch.setattr("accelerate.tracking.get_available_trackers", lambda: [])
    words = ["train", "lora", *brief("lora"), "--output", tmp_path / "out", "--tracker", "tensorboard"]
    refused(command(*words), "'tensorboard' is not installed here: pip install tensorboard")
    assert not [f for f in (tmp_path / "out").rglob("*") if f.is_file()]  # so that the run may begin without it


def test_settings_that_make_no_sense_leave_only_what_a_better_run_uses(command, brief, tmp_path):
    words = ["train", "lora", *brief("lora"), "--prior", 2, "--output", tmp_path / "out"]
    refused(command(*words, "--steps", -1), "steps: expected a whole number, 1 or more, got -1")
    drawn = {f.name: f.read_bytes() for f in (tmp_path / "out").rglob("*.png")}
    refused(command(*words, "--seed", 3), "drawn otherwise", "'seed': 0")
    code, said, _ = command(*words)
    assert code == 0 and "drawing" not in said
    assert drawn == {f.name: f.read_bytes() for f in (tmp_path / "out" / "checkpoints" / "prior").glob("*.png")}


def test_there_is_nothing_to_go_on_with(command, brief, tmp_path):
    refused(command("train", "lora", *brief("lora"), "--output", tmp_path / "out", "--resume"), "nothing to go on")


def test_a_users_folder_is_never_written_into(command, brief, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.doc").write_text("three years")
    refused(command("train", "lora", *brief("lora"), "--output", tmp_path / "out"), "is not empty", "choose another")
    words = ["generate", "--prompts", "a cat", "--output", tmp_path / "out"]
    refused(command(*words), "is not empty")
    (tmp_path / "file").write_text("x")
    refused(command("train", "lora", *brief("lora"), "--output", tmp_path / "file"), "is a file")
    assert (tmp_path / "out" / "thesis.doc").read_text() == "three years"


@pytest.mark.parametrize("method", ["oft", "lora", "custom", "textual-inversion", "control"])
def test_weights_of_another_architecture(method, train, command, other, tmp_path):
    folder = train(method)
    picture = ["--control", CAT / "0.png"] if method == "control" else []
    words = ["--prompts", "a cat", "--weights", folder, "--profile", other, "--output", tmp_path / "out", *picture]
    expected = {"custom": "different base models", "control": "made for another model"}
    refused(command("generate", *words), expected.get(method, "another model"))
    assert not (tmp_path / "out").exists()


def test_weights_that_are_none(command, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "torn.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0 torn")
    words = ["generate", "--prompts", "a cat", "--output", tmp_path / "out", "--weights"]
    refused(command(*words, tmp_path / "nowhere"), "there are no weights")
    refused(command(*words, tmp_path / "folder"), "no weights that are known here")
    refused(command(*words, tmp_path / "torn.safetensors"), "damaged")


def test_a_control_needs_its_picture_and_a_picture_its_control(command, train, tmp_path):
    Image.new("RGB", (64, 64)).save(tmp_path / "hint.png")
    words = ["generate", "--prompts", "a cat", "--output", tmp_path / "out"]
    refused(command(*words, "--weights", train("control", "--branch", "lite")), "a control needs both")
    refused(command(*words, "--weights", train("lora"), "--control", tmp_path / "hint.png"), "a control needs both")


def test_help_costs_no_heavy_import():
    import subprocess
    import sys

    code = "import sys; from tutorial_lib.cli import main; print('torch' in sys.modules, 'diffusers' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["False", "False"]


def test_pretraining_is_still_there(command, monkeypatch):
    from tutorial_lib.pocket.pretrain import run

    asked = []
    monkeypatch.setattr(run, "pretrain", lambda *words: asked.append(words))
    assert command("pretrain", "vae", "--minutes", 2.5, "--resume")[0] == 0 and command("pretrain", "all")[0] == 0
    assert asked == [("vae", 2.5, True), ("all", None, False)]
    refused(command("pretrain", "unte"), "invalid choice", "unet")
