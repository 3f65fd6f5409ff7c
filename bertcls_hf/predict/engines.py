"""What computes the logits of a batch: a PyTorch model, or its exported graph in ONNX Runtime or OpenVINO."""

import functools
import hashlib
import inspect
import json
import re
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Protocol

import numpy as np
import torch
from transformers import PreTrainedModel

from bertcls_hf.errors import ArgumentsError, one_line
from bertcls_hf.models.fingerprints import weights_fingerprint
from bertcls_hf.models.modeling import TextClassifier, TruncationSettings
from bertcls_hf.predict.arguments import Backend, InferenceDtype


# The names under which transformers.js and optimum look for a graph and for its int8 form, beside the configuration.
GRAPH_FILE, INT8_FILE = "onnx/model.onnx", "onnx/model_quantized.onnx"
# The lexical features alone, for a cascade.
LEXICAL_FILE = "onnx/lexical.onnx"
# The dtypes that each way of running a graph knows, and the file that each takes.
GRAPH_DTYPES: dict[Backend, dict[InferenceDtype, str]] = {
    "onnx": {"float32": GRAPH_FILE, "int8": INT8_FILE},
    # It takes longer for the int8 graph than for the other.
    "openvino": {"float32": GRAPH_FILE, "bfloat16": GRAPH_FILE},
}
PACKAGES: dict[Backend, str] = {"onnx": "onnxruntime", "openvino": "openvino"}
OPENVINO_PRECISIONS: dict[InferenceDtype, str] = {"float32": "f32", "bfloat16": "bf16"}
LOGITS, ERRORS_ONLY = "logits", 3
LEXICAL_INPUTS = ("input_ids", "attention_mask")
# A model's configuration also holds its path and the transformers version, which do not change the logits.
_PATH_OR_VERSION = re.compile(r'"(?:_name_or_path|transformers_version)": (?:"[^"]*"|null)')


class Engine(Protocol):
    """Computes logits. Several threads may call it at once on a processor."""

    @property
    def backend(self) -> Backend:
        """What computes."""
        ...

    @property
    def inputs(self) -> frozenset[str]:
        """The names of the inputs that it reads."""
        ...

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        ...

    @property
    def truncation(self) -> TruncationSettings | None:
        """How it reads longer texts than its encoder; None if the tokenizer cuts them."""
        ...

    @property
    def has_lexical_features(self) -> bool:
        """Whether a part beside the encoder reads the whole text."""
        ...

    @property
    def has_lexical_logits(self) -> bool:
        """Whether it can compute the logits of that part alone."""
        ...

    def logits(self, batch: Mapping[str, torch.Tensor]) -> np.ndarray:
        """Computes (rows, labels) float32 logits of (rows, length) int64 inputs."""
        ...

    def lexical_logits(self, batch: Mapping[str, torch.Tensor]) -> np.ndarray:
        """Computes the (rows, labels) float32 logits of the lexical features alone."""
        ...

    def fingerprint(self) -> list[str]:
        """Returns what the logits depend on besides the inputs."""
        ...


class TorchEngine:
    """A PyTorch model.

    Args:
        model: any `…ForSequenceClassification`; it is set to evaluation mode.
    """

    backend: Backend = "torch"

    def __init__(self, model: PreTrainedModel):
        self.model = model.eval()
        self.inputs = frozenset(inspect.signature(model.forward).parameters)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.model.device

    @property
    def truncation(self) -> TruncationSettings | None:
        """See [`Engine`]."""
        return self.model.truncation if isinstance(self.model, TextClassifier) else None

    @property
    def has_lexical_features(self) -> bool:
        """See [`Engine`]."""
        return isinstance(self.model, TextClassifier) and self.model.lexical is not None

    @property
    def has_lexical_logits(self) -> bool:
        """See [`Engine`]."""
        return self.has_lexical_features

    def logits(self, batch: Mapping[str, torch.Tensor]) -> np.ndarray:
        """See [`Engine`]."""
        # A new thread does not inherit the inference mode of the thread that started it.
        with torch.inference_mode():
            outputs = self.model(**{name: values.to(self.device) for name, values in batch.items()})
            return outputs.logits.float().cpu().numpy()

    def lexical_logits(self, batch: Mapping[str, torch.Tensor]) -> np.ndarray:
        """See [`Engine`]."""
        with torch.inference_mode():
            inputs = (batch[name].to(self.device) for name in LEXICAL_INPUTS)
            return self.model.lexical(*inputs).float().cpu().numpy()

    def fingerprint(self) -> list[str]:
        """See [`Engine`]."""
        settings = json.dumps(self.model.config.to_dict(), sort_keys=True, default=str)
        return [weights_fingerprint(self.model.state_dict()), _PATH_OR_VERSION.sub("", settings)]


class GraphEngine:
    """An exported graph on the processor, with a thread for each batch; one that is alone has all threads.

    Args:
        path: the graph's file.
        backend: what runs it.
        dtype: the number format of its arithmetic, which must be one of the backend's in [`GRAPH_DTYPES`].
        threads: how many batches are computed at once.

    Raises:
        ArgumentsError: if the file holds no graph.
    """

    device = torch.device("cpu")

    def __init__(self, path: Path, backend: Backend, dtype: InferenceDtype, threads: int):
        self.path, self.backend, self._dtype = path, backend, dtype
        try:
            self._runner = self._opened(batches=threads, threads=threads)
        except Exception as error:  # each of them raises kinds of its own
            raise ArgumentsError(f"{path} cannot be opened: {one_line(error)}") from error
        self.inputs, metadata = self._runner.inputs, self._runner.metadata
        truncation = json.loads(metadata.get("truncation", "null"))
        self.truncation = None if truncation is None else TruncationSettings(**truncation)
        self.has_lexical_features: bool = json.loads(metadata.get("lexical_features", "false"))
        if self.has_lexical_features and backend == "openvino":
            raise ArgumentsError(
                "the model hashes n-grams in 64 bits, and OpenVINO computes whole numbers in 32: use the backend onnx"
            )
        lexical = path.with_name(Path(LEXICAL_FILE).name)
        self._run_lexical = OnnxRuntime(lexical).run if self.has_lexical_features and lexical.is_file() else None

    def _opened(self, batches: int, threads: int) -> "OnnxRuntime | OpenVino":
        """Opens the graph for so many batches at once, which share the threads."""
        if self.backend == "onnx":
            return OnnxRuntime(self.path, threads // batches, spins=batches == 1)
        return OpenVino(self.path, OPENVINO_PRECISIONS[self._dtype], batches, threads)

    @functools.cached_property
    def _runner_of_one(self) -> "OnnxRuntime | OpenVino":
        return self._opened(batches=1, threads=torch.get_num_threads())

    @property
    def has_lexical_logits(self) -> bool:
        """See [`Engine`]."""
        return self._run_lexical is not None

    def logits(self, batch: Mapping[str, torch.Tensor]) -> np.ndarray:
        """See [`Engine`]."""
        # Where batches have a thread each, torch has one there too.
        runner = self._runner if torch.get_num_threads() == 1 else self._runner_of_one
        return runner.run({name: batch[name].numpy() for name in self.inputs})

    def lexical_logits(self, batch: Mapping[str, torch.Tensor]) -> np.ndarray:
        """See [`Engine`]."""
        assert self._run_lexical is not None
        return self._run_lexical({name: batch[name].numpy() for name in LEXICAL_INPUTS})

    def fingerprint(self) -> list[str]:
        """See [`Engine`]."""
        digest = hashlib.sha256()
        for file in sorted(self.path.parent.glob(f"{self.path.name}*")):
            with file.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
        return [digest.hexdigest(), self.backend, self._dtype]


class OnnxRuntime:
    """A graph in ONNX Runtime.

    Args:
        path: the file of the graph.
        threads: how many threads compute a batch. With one, it is the thread that asks.
        spins: whether threads keep a core busy while they wait for the next operation or batch. It answers sooner, but
            slows down what else computes, such as torch.
    """

    def __init__(self, path: Path, threads: int = 1, spins: bool = False):
        import onnxruntime  # Not among the packages of a training.

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = ERRORS_ONLY
        options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spins)))
        self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.inputs = frozenset(value.name for value in self._session.get_inputs())
        self.metadata: dict[str, str] = self._session.get_modelmeta().custom_metadata_map

    def run(self, batch: Mapping[str, np.ndarray]) -> np.ndarray:
        """Computes the logits of a batch."""
        return self._session.run([LOGITS], dict(batch))[0]


class OpenVino:
    """A graph that OpenVINO has compiled for this processor.

    Args:
        path: the file of the ONNX graph.
        precision: the number format of the arithmetic, as OpenVINO calls it.
        batches: how many batches are computed at once.
        threads: how many threads these share.
    """

    def __init__(self, path: Path, precision: str, batches: int, threads: int):
        import openvino  # Not among the packages of a training.

        settings = {"INFERENCE_PRECISION_HINT": precision, "NUM_STREAMS": batches, "INFERENCE_NUM_THREADS": threads}
        model = openvino.Core().read_model(path)
        self._compiled = openvino.Core().compile_model(model, "CPU", settings)
        self._idle: SimpleQueue[Any] = SimpleQueue()
        self.inputs = frozenset(value.get_any_name() for value in model.inputs)
        names = model.get_rt_info(["framework"]).value if model.has_rt_info(["framework"]) else {}
        self.metadata = {name: model.get_rt_info(["framework", name]).astype(str) for name in names}

    def run(self, batch: dict[str, np.ndarray]) -> np.ndarray:
        """Computes the logits of a batch."""
        try:
            request = self._idle.get_nowait()
        except Empty:
            request = self._compiled.create_infer_request()
        logits = np.array(request.infer(batch)[0], dtype=np.float32)
        self._idle.put(request)
        return logits


def has_graphs_alone(folder: Path) -> bool:
    """Says whether a local folder holds exported graphs, and no weights for PyTorch."""
    return (folder / GRAPH_FILE).parent.is_dir() and not any(folder.glob("*.safetensors"))


def is_processor(device: str) -> bool:
    """Says whether this is the name of a processor, such as `cpu`."""
    return device.partition(":")[0] == "cpu"


def is_installed(backend: Backend) -> bool:
    """Says whether the package of a backend for graphs is installed."""
    return find_spec(PACKAGES[backend]) is not None


def check_graph_options(backend: Backend, dtype: InferenceDtype, device: str | None) -> None:
    """Checks that a graph can run as the options ask.

    Raises:
        ArgumentsError: if the backend lacks the dtype, the device or its package.
    """
    if dtype not in GRAPH_DTYPES[backend]:
        raise ArgumentsError(f"dtype {dtype}: the backend {backend} computes in {' or '.join(GRAPH_DTYPES[backend])}")
    if device is not None and not is_processor(device):
        raise ArgumentsError(f"device {device}: the backend {backend} computes on the processor: leave it out")
    if not is_installed(backend):
        raise ArgumentsError(f"the backend {backend} needs a package: pip install {PACKAGES[backend]}")
