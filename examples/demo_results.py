"""What the demo makes of a trained job: files, checksums, and a judgement of its drawings."""

import json
import subprocess
import sys
from pathlib import Path

from demo_processes import DemoError
from demo_run import COMMANDS, EXAMPLES, Demo, run, st

from st_shared.durable import sha256_of
from st_shared.protocol.journal import CheckpointManifest

DIGITS_DRAWN = 100


def fetch_results(demo: Demo) -> Path:
    """Download what the job stored, verified; gives the weights."""
    demo.step("fetch samples, checkpoints and weights")
    st(demo, "artifacts", demo.job_id, "--download", demo.results)
    output = demo.results / "output"
    for title, name in (("loss curve", "loss_curve.png"), ("sample grid", "sample_grid.png")):
        demo.summary.append((title, str(picture(output / name))))
    weights = output / "weights.safetensors"
    demo.summary.append(("weights", f"{weights}\n  SHA-256 {sha256_of(weights)}"))
    return weights


def picture(path: Path) -> Path:
    """``path``, if a PNG lies there."""
    if not path.is_file() or path.read_bytes()[:8] != b"\x89PNG\r\n\x1a\n":
        raise DemoError(f"the job stored no picture {path.name}")
    return path


def verify_checkpoints(demo: Demo) -> None:
    """Compare every file of every stored checkpoint with its manifest."""
    demo.step("verify the checksums of the checkpoints")
    manifests = sorted(demo.results.glob("checkpoints/*/manifest.json"))
    if not manifests:
        raise DemoError("the job stored no checkpoint")
    verified = sum(verify_manifest(path) for path in manifests)
    print(f"{verified} files in {len(manifests)} checkpoints are as their manifests say")
    demo.summary.append(("checkpoint", f"{manifests[-1]} ({verified} files verified in all)"))


def verify_manifest(path: Path) -> int:
    """The number of files in a manifest, every one of which is present and whole."""
    manifest = CheckpointManifest.model_validate_json(path.read_bytes())
    for item in manifest.files:
        file = path.parent / item.path
        if not file.is_file() or (file.stat().st_size, sha256_of(file)) != (item.size, item.sha256):
            raise DemoError(f"{file} is missing or differs from {path}")
    return len(manifest.files)


def load_again(demo: Demo, weights: Path) -> None:
    """Load the weights into a run that only draws."""
    demo.step("load the weights again, for validation only")
    with demo.client() as client:
        spec = client.job(demo.job_id).spec
    training = spec["training"]
    training["model"] |= {"base": str(weights), "base_sha256": sha256_of(weights)}
    training |= {"steps": 0, "datasets": []}
    job, folder = demo.results / "validate.yaml", demo.results / "validate"
    job.write_text(json.dumps(spec, indent=2), encoding="utf-8")  # JSON is YAML too
    run(demo, COMMANDS / "st-train", "run", job, "--run-dir", folder)
    demo.summary.append(("drawn again", str(picture(folder / "output" / "sample_grid.png"))))


def check_digits(demo: Demo, weights: Path) -> None:
    """Have a classifier read freshly drawn digits; too few as asked is a failure."""
    demo.step(f"draw {DIGITS_DRAWN} digits and have a classifier read them")
    if demo.steps is not None:
        print(f"skipped: {demo.steps} steps may be too few to learn (--steps)")
        demo.summary.append(("captions matched", "not checked, because of --steps"))
        return
    command: list[str | Path] = [sys.executable, EXAMPLES / "digits.py", "check", weights, "--json"]
    done = subprocess.run(
        [*command, "--count", str(DIGITS_DRAWN)],
        env=demo.environment,
        stdout=subprocess.PIPE,
        check=False,
    )
    found = json.loads(done.stdout) if done.stdout else {}
    if done.returncode:
        raise DemoError(f"too few digits match their caption: {found}")
    print(f"{found['matched']} of {found['drawn']} match their caption")
    demo.summary.append(("captions matched", f"{found['share']:.0%} of {found['drawn']}"))
