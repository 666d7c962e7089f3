"""Inference by other engines: ONNX Runtime and OpenVINO, each given what `minialex export` writes.

Both compute in float32, as all sides do: OpenVINO would by itself take bfloat16 where the processor has it. Each is
told the batch size before it compiles, which is the quicker way for both.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minialex.data.draws import centre_crop_offset
from minialex.engine.session import Session
from minialex.exchange import onnx_file
from minialex.recipe.fields import Recipe
from minialex.runs.weights_file import Weights

Run = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""Pixels [N,3,crop,crop] to probabilities [N,K]."""


def onnxruntime(model: bytes, threads: int, batch: int) -> Run:
    """ONNX Runtime on its own CPU provider."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_free_dimension_override_by_name("N", batch)
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return lambda pixels: session.run(["probabilities"], {"pixels": pixels})[0]  # type: ignore[no-any-return]


def openvino(model: bytes, threads: int, batch: int) -> Run:
    """OpenVINO on its CPU plugin, all threads on one request at a time."""
    import openvino as ov

    core = ov.Core()
    network = core.read_model(model)
    shape = network.input("pixels").partial_shape
    shape[0] = batch
    network.reshape({"pixels": shape})
    asked = {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    request = core.compile_model(network, "CPU", asked).create_infer_request()
    return lambda pixels: request.infer({"pixels": pixels})["probabilities"]


ENGINES: dict[str, Callable[[bytes, int, int], Run]] = {"onnxruntime": onnxruntime, "openvino": openvino}


class EngineSession:
    """A network in an engine, and what `minialex.engine.session.Session` is asked for.

    Args:
        engine: one of `ENGINES`
        session: whose weights and statistics are exported
        threads: of the engine
    """

    def __init__(self, engine: str, session: Session, threads: int) -> None:
        self.recipe: Recipe = session.recipe
        weights = Weights(session.recipe, (), session.statistics, session.weights(), "random")
        self.model: bytes = onnx_file.build(weights).SerializeToString()
        self.make, self.threads = ENGINES[engine], threads
        self.runs: dict[int, Run] = {}

    def probabilities(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Probabilities [N,K] of uint8 images [N,3,S,S], centre view."""
        N = len(images)
        if N not in self.runs:
            self.runs[N] = self.make(self.model, self.threads, N)
        crop = self.recipe.crop
        first = centre_crop_offset(self.recipe.image_size, crop)
        cut: Any = images[:, :, first : first + crop, first : first + crop]
        return self.runs[N](cut.astype(np.float32))
