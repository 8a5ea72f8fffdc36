"""Adapters: little is trained, the model has it merged, and it can be laid on its start again."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from conftest import tiny_network
from test_trainer import TINY, files, losses, some_pictures, weights

from studio.errors import CheckpointError, SpecError
from studio.networks.lowrank import attach
from studio.training import adapters
from studio.training.trainer import Trainer
from studio.weights import formats, tensors

pytestmark = pytest.mark.usefixtures("one_thread")

LORA = replace(TINY, start="tiny", train="adapters", rank=2, rate=5e-3)


def random_pairs(net, seed=0):
    """Give every adapter something to say."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if name.endswith("weight.0.b"):
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))


def answers(net):
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(2, 3, 8, 8, generator=generator)
    with torch.no_grad():
        return net(x, torch.tensor([0.2, 0.9]), torch.tensor([0, 1]))


def with_adapters(rank=2):
    net = tiny_network()
    attach(net, rank)
    return net


def test_adapters_begin_with_what_the_network_knows():
    torch.testing.assert_close(answers(with_adapters()), answers(tiny_network()))


def test_a_network_with_adapters_merged_answers_as_with_them_beside():
    net = with_adapters()
    random_pairs(net)
    plain = tiny_network()
    plain.load_state_dict(adapters.merged(net.state_dict()))
    torch.testing.assert_close(answers(plain), answers(net), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(answers(plain), answers(tiny_network()))


def test_adapters_have_the_layout_of_the_peft_library(tmp_path):
    net = with_adapters(rank=3)
    random_pairs(net)
    adapters.save(tmp_path, adapters.of(net.state_dict(), "tiny"))
    state = tensors.read_safetensors(tmp_path / "adapter_model.safetensors")
    shapes = {k: tuple(v.shape) for k, v in state.items()}
    # A convolution (16, 8, 3, 3) and a linear layer (16, 16).
    conv, linear = "base_model.model.down.1", "base_model.model.noise.out"
    assert shapes[f"{conv}.lora_A.weight"] == (3, 8, 3, 3)
    assert shapes[f"{conv}.lora_B.weight"] == (16, 3, 1, 1)
    assert shapes[f"{linear}.lora_A.weight"] == (3, 16)
    assert shapes[f"{linear}.lora_B.weight"] == (16, 3)
    assert len(state) == 2 * len({k.rsplit(".", 2)[0] for k in state})
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (config["peft_type"], config["r"], config["lora_alpha"]) == ("LORA", 3, 3)
    assert config["base_model_name_or_path"] == "tiny"
    assert "down.1" in config["target_modules"]


def test_adapters_are_laid_on_their_start_again(tmp_path):
    net = with_adapters()
    random_pairs(net)
    adapters.save(tmp_path, adapters.of(net.state_dict(), "tiny"))
    found = adapters.load(tmp_path)
    plain = tiny_network()
    plain.load_state_dict(found.on(plain.state_dict()))
    torch.testing.assert_close(answers(plain), answers(net), rtol=1e-4, atol=1e-5)
    plain.load_state_dict(found.on(plain.state_dict(), share=-1.0))
    torch.testing.assert_close(answers(plain), answers(tiny_network()), rtol=1e-4, atol=1e-5)


def test_alpha_scales_adapters_of_other_makers(tmp_path):
    net = with_adapters()
    random_pairs(net)
    adapters.save(tmp_path, adapters.of(net.state_dict(), ""))
    path = tmp_path / "adapter_config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"lora_alpha": 1, "alpha_pattern": {}}))
    assert adapters.load(tmp_path).scales["down.1"] == pytest.approx(0.5)
    path.write_text(json.dumps(config | {"alpha_pattern": {"1": 6}}))
    assert adapters.load(tmp_path).scales["down.1"] == pytest.approx(3)


@pytest.mark.parametrize(
    "spoilt",
    [
        "",
        "[]",
        "{}",
        '{"peft_type": "IA3", "r": 1, "lora_alpha": 1}',
        '{"peft_type": "LORA"}',
        "{" * 9999,
    ],
)
def test_settings_that_mean_nothing_are_refused(tmp_path, spoilt):
    adapters.save(tmp_path, adapters.of(with_adapters().state_dict(), ""))
    (tmp_path / "adapter_config.json").write_text(spoilt)
    with pytest.raises(CheckpointError):
        adapters.load(tmp_path)


def test_adapters_of_another_network_are_refused(tmp_path):
    adapters.save(tmp_path, adapters.of(with_adapters().state_dict(), "tiny"))
    other = {"elsewhere.weight": torch.zeros(3, 3)}
    with pytest.raises(CheckpointError, match="another network") as caught:
        adapters.load(tmp_path).on(other)
    assert "tiny" in caught.value.hint


def test_a_folder_without_adapters_is_no_adapter(tmp_path):
    with pytest.raises(CheckpointError, match="no adapters"):
        adapters.load(tmp_path)


# -- trained --------------------------------------------------------------------------------------


def tuned(folder, tiny_checkpoint, plan=LORA):
    return Trainer(plan, some_pictures(), folder, start=formats.open_model(tiny_checkpoint))


def test_training_adapters_leaves_the_network_and_learns(tmp_path, tiny_checkpoint):
    plan = replace(LORA, steps=150, batch=16)
    trainer = tuned(tmp_path / "run", tiny_checkpoint, plan)
    before = weights(trainer)
    seen = losses(trainer)
    assert sum(seen[-30:]) / 30 < 0.8 * sum(seen[:10]) / 10
    after = weights(trainer)
    still = [k for k in before if torch.equal(before[k], after[k])]
    assert sorted(set(before) - set(still)) == sorted(
        k for k in before if k.endswith(("weight.0.a", "weight.0.b"))
    )


def test_the_model_of_an_adapter_run_is_its_start_with_the_adapters_on_it(
    tmp_path, tiny_checkpoint
):
    losses(tuned(tmp_path / "run", tiny_checkpoint))
    model = formats.open_model(tmp_path / "run")
    assert model.format == "Score Studio"
    start = formats.open_model(tiny_checkpoint)
    laid = adapters.load(tmp_path / "run").on(start.network().state_dict())
    for name, value in model.network().state_dict().items():
        torch.testing.assert_close(value, laid[name].float(), rtol=2e-3, atol=2e-3)  # kept as half
    assert not torch.equal(laid["head.weight"], start.network().state_dict()["head.weight"])


@pytest.mark.parametrize("changes", [{}, {"train": "last", "last": 2}, {"checkpointing": True}])
def test_what_is_trained_in_part_goes_on_after_a_stop_without_its_start(
    tmp_path, tiny_checkpoint, changes
):
    plan = replace(LORA, dropout=0.0, **changes)
    whole = losses(tuned(tmp_path / "whole", tiny_checkpoint, plan))
    trainer = tuned(tmp_path / "parts", tiny_checkpoint, plan)
    seen = [float(trainer.advance()) for _ in range(5)]
    trainer.save()
    kept = files(tmp_path / "parts")
    again = Trainer(plan, some_pictures(), tmp_path / "parts")
    assert files(tmp_path / "parts") == kept
    seen += losses(again)
    assert seen == pytest.approx(whole, rel=1e-4)


def test_the_last_blocks_alone_are_trained(tmp_path, tiny_checkpoint):
    plan = replace(LORA, train="last", last=1, steps=5)
    trainer = tuned(tmp_path / "run", tiny_checkpoint, plan)
    before = weights(trainer)
    losses(trainer)
    changed = {k for k, v in weights(trainer).items() if not torch.equal(v, before[k])}
    assert changed
    assert {k.split(".")[0] for k in changed} <= {"up", "norm", "head"}


@pytest.mark.parametrize("train", ["last", "adapters"])
def test_a_part_of_nothing_cannot_be_trained(tmp_path, train):
    with pytest.raises(SpecError, match="in part"):
        Trainer(replace(TINY, train=train), some_pictures(), tmp_path)


def test_saving_memory_changes_no_loss(tmp_path):
    plain = losses(Trainer(TINY, some_pictures(), tmp_path / "a"))
    saving = Trainer(replace(TINY, checkpointing=True), some_pictures(), tmp_path / "b")
    assert losses(saving) == pytest.approx(plain, rel=1e-5)


def test_a_start_may_learn_pictures_of_another_size(tmp_path, tiny_checkpoint):
    pictures = some_pictures()
    large = replace(pictures, pixels=pictures.pixels.repeat(2, 1).repeat(2, 2))
    start = formats.open_model(tiny_checkpoint)
    trainer = Trainer(replace(TINY, start="tiny", size=16), large, tmp_path / "run", start=start)
    assert trainer.info.size == 16
    losses(trainer)
    assert formats.open_model(tmp_path / "run").score().shape == (3, 16, 16)
    with pytest.raises(SpecError, match="cannot take pictures of 9 px"):
        Trainer(replace(TINY, start="tiny", size=9), large, tmp_path / "x", start=start)
