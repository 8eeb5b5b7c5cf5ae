"""A fingerprint changes with whatever tells weights apart, and with nothing else."""

import copy

import pytest
import torch
from accelerate import cpu_offload, disk_offload, dispatch_model
from peft import LoraConfig
from torch import nn
from transformers import BitsAndBytesConfig

from avalanche_cit.models.fingerprint import fingerprint, module_fingerprint
from avalanche_cit.models.lmm import LMM

DTYPES = (
    *(torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.complex64, torch.bool),
    *(torch.uint8, torch.int8, torch.int64, torch.float8_e4m3fn, torch.float8_e5m2),
)


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 3), nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 2)))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_bit_counts_in_every_data_type(dtype):
    size = torch.empty((), dtype=dtype).element_size()
    data = (torch.arange(6 * size) % 2).to(torch.uint8)  # bytes that are values of every type, of bool too
    seen = {fingerprint({"a": data.view(dtype)})}
    for i in range(len(data)):
        changed = data.clone()
        changed[i] ^= 1
        seen.add(fingerprint({"a": changed.view(dtype)}))
    assert len(seen) == 1 + len(data)


def test_data_types_and_shapes_of_the_same_bytes_differ():
    zeros = torch.zeros(4, dtype=torch.uint8)
    alike = [*(zeros.view(dtype) for dtype in DTYPES if dtype.itemsize <= 4), zeros.reshape(2, 2), zeros.reshape(4, 1)]
    alike.append(zeros.view(torch.int32)[0])  # no dimension at all
    assert len({fingerprint({"a": tensor}) for tensor in alike}) == len(alike)
    empty = [torch.zeros(0), torch.zeros(0, 3), torch.zeros(3, 0)]
    assert len({fingerprint({"a": tensor}) for tensor in empty}) == len(empty)


def test_names_count_and_order_does_not():
    a, b = torch.zeros(2), torch.ones(2)
    assert fingerprint({"a": a, "b": b}) == fingerprint({"b": b, "a": a})
    others = [{"a": b, "b": a}, {"a": a}, {"a": a, "c": b}, {}, {"a\n": a, "b": b}]
    assert len({fingerprint(tensors) for tensors in [{"a": a, "b": b}, *others]}) == 1 + len(others)


def test_memory_layout_and_gradients_do_not_count():
    weight = torch.randn(3, 5)
    same = [weight.t().contiguous().t(), torch.stack([weight, weight], dim=2)[..., 0], nn.Parameter(weight)]
    assert {fingerprint({"a": tensor}) for tensor in same} == {fingerprint({"a": weight})}
    assert len(fingerprint({"a": weight})) == 64


def test_a_tensor_without_values_is_refused():
    with pytest.raises(ValueError, match="'a' is on the meta device"):
        fingerprint({"a": torch.zeros(2, device="meta")})
    with pytest.raises(ValueError, match=r"'weight' is on the meta device"):
        module_fingerprint(nn.Linear(2, 2, device="meta"))


def test_a_module_s_parameters_and_persistent_buffers_count(network):
    before = module_fingerprint(network)
    assert before == fingerprint(network.state_dict())
    network.register_buffer("cache", torch.zeros(1), persistent=False)
    assert module_fingerprint(network) == before
    with torch.no_grad():
        network[1][0].running_mean[1] += 1  # a buffer
    after = module_fingerprint(network)
    assert after != before
    with torch.no_grad():
        network[0].weight[0, 0] += 1e-3
    assert module_fingerprint(network) not in (before, after)


def test_an_offloaded_module_has_the_fingerprint_of_its_values(network, tmp_path):
    """accelerate leaves tensors of the meta device in its place."""
    expected, other = module_fingerprint(network), copy.deepcopy(network)
    with torch.no_grad():
        other[1][1].bias[0] += 1
    for module, same in ((network, True), (other, False)):
        parts = {"0": "cpu", "1.0": "cpu", "1.1": "disk"}
        offloaded = [
            cpu_offload(copy.deepcopy(module), execution_device=torch.device("cpu")),
            disk_offload(copy.deepcopy(module), tmp_path / str(same), torch.device("cpu"), offload_buffers=True),
            dispatch_model(
                copy.deepcopy(module), parts, main_device="cpu", offload_dir=tmp_path / f"{same}-part", force_hooks=True
            ),
        ]
        for part in offloaded:
            assert any(weight.is_meta for weight in part.parameters())
            assert (module_fingerprint(part) == expected) is same
            assert any(weight.is_meta for weight in part.parameters())  # and is offloaded still


@pytest.mark.parametrize("quantization", ["4bit", "8bit"])
def test_scales_of_quantised_weights_count(folders, quantization):
    """bitsandbytes keeps them beside the weights, in no parameter or buffer."""
    config = BitsAndBytesConfig(load_in_4bit=quantization == "4bit", load_in_8bit=quantization == "8bit")
    model = LMM.from_pretrained(folders["llama"], quantization_config=config, lora=LoraConfig(r=1))
    before = module_fingerprint(model.hf)
    assert module_fingerprint(copy.deepcopy(model.hf)) == before
    weight = model.hf.language_model.model.layers[0].mlp.up_proj.weight
    scales = weight.quant_state.absmax if quantization == "4bit" else weight.SCB
    scales[0] *= 2
    assert module_fingerprint(model.hf) != before
