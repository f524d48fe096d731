"""What the scripted trainer writes, as formulas: the standard library alone."""

from hashlib import sha256, shake_128

SAMPLE_EVERY = 25
_WEIGHTS_BYTES = 200_000


def loss(seed: int, step: int) -> float:
    """A number that no other job has at this step."""
    return int.from_bytes(sha256(f"loss {seed} {step}".encode()).digest()[:4]) / 2**32


def log_line(seed: int, step: int) -> str:
    return f"job {seed} step {step}"


def sample(seed: int, step: int) -> bytes:
    return _bytes(f"sample {seed} {step}", 5_000)


def checkpoint_files(seed: int, step: int) -> dict[str, bytes]:
    """Name -> content, the manifest left out."""
    state = f'{{"seed": {seed}, "step": {step}}}'.encode()
    return {
        "weights.safetensors": _bytes(f"ckpt {seed} {step}", _WEIGHTS_BYTES),
        "state.json": state,
    }


def result_files(seed: int, steps: int) -> dict[str, bytes]:
    """Path -> content of the results."""
    return {
        "output/weights.safetensors": _bytes(f"result {seed} {steps}", _WEIGHTS_BYTES),
        "output/card.txt": f"card of {seed}".encode(),
    }


def _bytes(name: str, size: int) -> bytes:
    return shake_128(name.encode()).digest(size)
