"""The benchmark of a ControlNet's step: both recipes compute the same thing, and the table is right."""

import control_step
import pytest
import torch


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    return control_step.course("pocket", 64, "cpu", tmp_path_factory.mktemp("scratch"))


def test_both_recipes_have_the_same_loss_but_for_the_vaes_noise(course):
    plain, ours = (control_step.mean_loss(course, loss, 4) for loss in (control_step.plain_loss, control_step.our_loss))
    assert ours == pytest.approx(plain, rel=0.02)


def test_with_the_same_latents_both_losses_are_the_same_number(course, monkeypatch):
    batch = course.batch(0, 3)
    posterior = type("Posterior", (), {"sample": lambda self: batch["latents"] / course.pipe.vae.config.scaling_factor})
    monkeypatch.setattr(course.pipe.vae, "encode", lambda pixels: type("Out", (), {"latent_dist": posterior()}))
    with torch.no_grad():
        plain, ours = control_step.plain_loss(course, batch), control_step.our_loss(course, batch)
    torch.testing.assert_close(plain, ours, rtol=1e-5, atol=1e-6)


def test_a_step_trains_the_branch_and_nothing_else(course):
    frozen = {name: p.clone() for name, p in course.pipe.unet.named_parameters()}
    before = [p.clone() for p in course.branch.parameters()]
    for loss in (control_step.plain_loss, control_step.our_loss):
        control_step.step_of(course, loss, 2)()
    assert any(not torch.equal(a, b) for a, b in zip(before, course.branch.parameters()))
    assert all(torch.equal(frozen[name], p) for name, p in course.pipe.unet.named_parameters())


def test_the_report_tells_the_ratio_and_judges_stable_diffusion_alone():
    row = control_step.Row("SD 1.5", 1, "cpu", 2, 128, 3000.0, 2000.0, 900.0, 600.0, 1.0, 1.001, "m")
    lines = list(control_step.report([row]))
    assert "1.50 times as fast; memory 0.67" in lines[0] and lines[1].endswith("reached")
    slow = control_step.Row("SD 1.5", 1, "cpu", 2, 128, 2000.0, 2000.0, 900.0, 900.0, 1.0, 1.0, "m")
    assert list(control_step.report([slow]))[1].endswith("not reached")
