"""What cannot be opened is named, with what to do instead."""

from __future__ import annotations

import json
import zipfile

import pytest
import torch
from safetensors.torch import save_file

from studio.errors import CheckpointError
from studio.weights import formats
from studio.weights.formats import refused

pytestmark = pytest.mark.usefixtures("one_thread")

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n"


def refusal(path):
    with pytest.raises(CheckpointError) as caught:
        formats.open_model(path)
    assert caught.value.hint
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.bin", b"", "is empty"),
        ("model.safetensors", b"", "is empty"),
        ("a.safetensors", POINTER, "git lfs pull"),
        ("a.bin", b"\n<!DOCTYPE html><html>Sign in</html>", "web page"),
        ("a.safetensors", b"<html>", "web page"),
        ("edm-cifar10-32x32-uncond-ve.pkl", b"\x80\x04cposix\nsystem\n", "runs code of its own"),
        ("net.onnx", b"\x08\x07", "ONNX"),
        ("net.bin", b"GGUF\x03", "GGUF"),
        ("flax_model.msgpack", b"\x82", "Flax"),
        ("notes.txt", b"hello", "no file of weights"),
    ],
)
def test_a_file_is_known_by_its_name_and_first_bytes(tmp_path, name, content, reason):
    (tmp_path / name).write_bytes(content)
    assert reason in refusal(tmp_path / name)


def test_a_program_in_an_archive_is_refused_unread(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.pt", "w") as archive:
        archive.writestr("net/code/__torch__.py", "raise SystemExit")
        archive.writestr("net/data.pkl", b"")
    assert "TorchScript" in refusal(tmp_path / "a.pt")
    (tmp_path / "b.pt").write_bytes(b"PK\x03\x04 cut short")
    assert "b.pt" in refusal(tmp_path / "b.pt")


def test_a_folder_that_was_cloned_without_its_files_says_so(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(POINTER)
    assert "git lfs pull" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ("text_encoder", "what a text says"),
        ("vae", "latents of an autoencoder"),
        ("vqvae", "latents of an autoencoder"),
        ("transformer", "not a U-Net"),
    ],
)
def test_a_folder_for_text_or_latents_is_refused(tmp_path, part, said):
    (tmp_path / "model_index.json").write_text(json.dumps({part: ["diffusers", "X"], "unet": []}))
    assert said in refusal(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000, "\x00"])
def test_a_damaged_index_is_no_reason_to_fall_over(tmp_path, text):
    (tmp_path / "model_index.json").write_text(text)
    refused.check_path(tmp_path)


def test_what_may_be_a_model_passes(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"\x08\x00\x00\x00\x00\x00\x00\x00{}      ")
    (tmp_path / "a.txt").write_bytes(b"")
    for path in (tmp_path, *tmp_path.iterdir()):
        refused.check_path(path)


def table(*names):
    return {name: torch.zeros(1) for name in names}


NETWORKS = [
    (table("first_stage_model.encoder.conv_in.weight"), "latent diffusion"),
    (table("model.diffusion_model.input_blocks.0.0.weight"), "latent diffusion"),
    ({"state_dict": table("cond_stage_model.transformer.x")}, "reads text"),
    (table("text_model.encoder.layers.0.weight"), "reads text"),
    (table("lora_unet_down_blocks_0.lora_down.weight"), "LoRA"),
    (table("unet.down.attn.to_q.lora_A.weight"), "LoRA"),
    (table("x_embedder.proj.weight", "blocks.0.adaLN_modulation.1.weight"), "DiT"),
    (table("pos_embed.proj.weight", "transformer_blocks.0.attn1.to_q.weight"), "transformer"),
    (table("down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight"), "steered by text"),
    (table("encoder.conv_in.weight", "decoder.conv_in.weight"), "autoencoder"),
    (
        {"step": 1, "model": table("model.init_conv.weight", "model.downs.0.0.mlp.1.weight")},
        "denoising-diffusion-pytorch",
    ),
    (
        {"model_ema": table("inner_model.mapping.layers.0.weight"), "gns_stats": None},
        "k-diffusion",
    ),
    ({"state": {}, "param_groups": []}, "optimizer"),
    (table("input_blocks.0.0.weight", "time_embed.0.weight"), "tells classes apart"),
    (table("something.else"), "no network that the studio knows"),
    ([1, 2, 3], "no network that the studio knows"),
]


@pytest.mark.parametrize(("tree", "reason"), NETWORKS)
def test_a_network_is_known_by_the_names_of_its_tensors(tmp_path, tree, reason):
    torch.save(tree, tmp_path / "a.pt")
    assert reason in refusal(tmp_path / "a.pt")


def test_so_it_is_in_safetensors(tmp_path):
    save_file(table("lora_unet_down.lora_up.weight"), tmp_path / "a.safetensors")
    assert "LoRA" in refusal(tmp_path / "a.safetensors")


@pytest.mark.parametrize("tree", [torch.zeros(3), 5, "text", None])
def test_what_is_no_table_is_refused_too(tmp_path, tree):
    torch.save(tree, tmp_path / "a.pt")
    refusal(tmp_path / "a.pt")


def test_tables_that_hold_each_other_come_to_an_end():
    tree = {"a": torch.zeros(1)}
    tree["again"] = tree
    long = [0] * 10**5
    refused.check_tree({"tree": tree, "many": [[long] * 10**5] * 10**5}, "a.pt")
