"""ONNX networks: opened with one thread, on the device that a worker was given."""

from pathlib import Path
from typing import Any

from pipeline.errors import MarlinError


def onnx_providers(device: str) -> list[str]:
    """Execution providers for a device: CUDA if it is asked for and this onnxruntime has it, the CPU in any case."""
    import onnxruntime

    cuda = "CUDAExecutionProvider"
    wanted = device == "cuda" and cuda in onnxruntime.get_available_providers()
    return [cuda, "CPUExecutionProvider"] if wanted else ["CPUExecutionProvider"]


def session_options() -> Any:
    """One thread a call, so that floats do not depend on the machine's load."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return options


def onnx_session(path: Path, key: str, device: str) -> Any:
    """An onnxruntime session of a configured network file.

    Args:
        path: the file.
        key: the configuration's key that named it.
        device: 'cpu' or 'cuda'.

    Raises:
        MarlinError: it is no ONNX file that onnxruntime reads.
    """
    import onnxruntime

    try:
        return onnxruntime.InferenceSession(str(path), session_options(), providers=onnx_providers(device))
    except Exception as error:  # onnxruntime's own exception classes have no public name
        reason = str(error).strip().splitlines()[0]
        raise MarlinError(f"{key}: {path} is not an ONNX file that onnxruntime reads: {reason}") from error
