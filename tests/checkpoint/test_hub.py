"""Local paths as they are; the Hub through its own client, against a cache and a server that these tests build.

The server speaks the Hub's protocol on this machine, so the real client lists, downloads, caches and fails for real.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import save

from vaeport.checkpoint import open_checkpoint, resolve
from vaeport.errors import BlockedError, CheckpointError, InputError

COMMIT = "0123456789abcdef0123456789abcdef01234567"
CONFIG = json.dumps({"_class_name": "AutoencoderKL"}).encode()


def weights(value: float) -> bytes:
    return save({"w": torch.full((4,), float(value))})


FILES = {
    "model_index.json": b"{}",
    "README.md": b"# a pipeline",
    "unet/config.json": CONFIG,
    "unet/diffusion_pytorch_model.safetensors": weights(0),
    "vae/config.json": CONFIG,
    "vae/diffusion_pytorch_model.safetensors": weights(1),
    "vae/diffusion_pytorch_model.fp16.safetensors": weights(2),
    "vae/diffusion_pytorch_model.bin": b"",
    "sharded/config.json": CONFIG,
    "sharded/diffusion_pytorch_model.safetensors.index.bf16.json": json.dumps(
        {"weight_map": {"w": "diffusion_pytorch_model.bf16-00001-of-00001.safetensors"}}
    ).encode(),
    "sharded/diffusion_pytorch_model.bf16-00001-of-00001.safetensors": weights(3),
    "sharded/diffusion_pytorch_model-00001-of-00002.safetensors": weights(4),
    "pickled/config.json": CONFIG,
    "pickled/diffusion_pytorch_model.bin": b"",
    "ae.safetensors": weights(5),
}


class Hub(BaseHTTPRequestHandler):
    """The part of the Hub's protocol that downloads need; `asked` holds the files whose contents were asked for."""

    asked: set[str]
    refusal: tuple[int, str]

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        tokens = self.headers.get("authorization", "")
        if "/private-org/" in path and tokens != "Bearer hf_right":
            status, code = self.refusal
            self.answer(status, b'{"error": "no"}', {"X-Error-Code": code, "X-Error-Message": "no"})
        elif path.startswith("/api/models/"):
            self.answer_listing(path)
        else:
            name = path.split("/resolve/")[1].split("/", 1)[1]
            if self.command == "GET":
                self.asked.add(name)
            content = FILES[name]
            etag = f'"{hashlib.sha256(content).hexdigest()}"'
            self.answer(200, content, {"X-Repo-Commit": COMMIT, "ETag": etag, "Accept-Ranges": "bytes"})

    def do_HEAD(self) -> None:
        self.do_GET()

    def answer_listing(self, path: str) -> None:
        if "/revision/" in path and not path.endswith(("/main", COMMIT)):
            self.answer(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        elif "/tree/" in path:
            tree = [
                {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                for name, content in FILES.items()
            ]
            self.answer(200, json.dumps(tree).encode(), {})
        else:
            siblings = [{"rfilename": name} for name in FILES]
            self.answer(200, json.dumps({"id": "org/name", "sha": COMMIT, "siblings": siblings}).encode(), {})

    def answer(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""


def use_endpoint(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty Hub cache for the client in this process, with no way out to the network."""
    folder = tmp_path / "hub"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_IMPLICIT_TOKEN", False)
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    use_endpoint(monkeypatch, "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.chdir(tmp_path)
    return folder


@pytest.fixture
def hub(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Hub]]:
    handler = type("ThisHub", (Hub,), {"asked": set(), "refusal": (403, "GatedRepo")})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    use_endpoint(monkeypatch, f"http://127.0.0.1:{server.server_port}")
    yield handler
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def cached(cache: Path) -> Callable[..., Path]:
    """Lay files out as the client does: blobs, and links to them in a snapshot that `main` refers to."""

    def build(names: list[str]) -> Path:
        repository = cache / "models--org--name"
        (repository / "refs").mkdir(parents=True, exist_ok=True)
        (repository / "refs" / "main").write_text(COMMIT)
        (repository / "blobs").mkdir(exist_ok=True)
        for name in names:
            blob = repository / "blobs" / hashlib.sha256(FILES[name]).hexdigest()
            blob.write_bytes(FILES[name])
            link = repository / "snapshots" / COMMIT / name
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(Path(os.path.relpath(blob, link.parent)))
        return repository / "snapshots" / COMMIT

    return build


VAE = ["vae/config.json", "vae/diffusion_pytorch_model.safetensors"]


def value(path: Path, variant: str | None = None) -> float:
    with open_checkpoint(path, variant=variant) as checkpoint:
        return float(checkpoint.tensor("w")[0])


def test_local_paths_are_returned_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "org" / "name" / "vae").mkdir(parents=True)
    (tmp_path / "org" / "name" / "vae" / "a.safetensors").touch()
    monkeypatch.chdir(tmp_path)
    assert resolve("org/name") == Path("org/name")
    assert resolve(tmp_path / "org", subfolder="name/vae") == tmp_path / "org" / "name" / "vae"
    file = tmp_path / "org" / "name" / "vae" / "a.safetensors"
    assert resolve(str(file)) == file
    assert resolve(tmp_path / "org" / "name", subfolder="vae", filename="a.safetensors") == file


def test_local_paths_touch_neither_client_nor_network(tmp_path: Path) -> None:
    script = "import sys; from vaeport.checkpoint import resolve; resolve(sys.argv[1]); "
    script += "assert 'huggingface_hub' not in sys.modules"
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True, timeout=60)


def test_missing_path(tmp_path: Path, refuses: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "Wan2.1_VAE.pth").touch()
    what, expected = "no such file or folder, and not the form of a Hub id", "an existing path, or organisation/name"
    found = "in models: nearest names: Wan2.1_VAE.pth"
    for path in ("models/Wan2.1-VAE.pth", Path("models/Wan21_VAE.pth")):
        with refuses(CheckpointError, what, where=path, expected=expected, found=found, fix="check the path"):
            resolve(path)
    for path in ("/no/where", "./model", "a/b/c", "model", "-x/y", "", "a b/c", "x" * 5000):
        if path:
            with refuses(CheckpointError, what, where=path, expected=expected):
                resolve(path)


def test_missing_subfolder(tmp_path: Path, refuses: Any) -> None:
    (tmp_path / "vae").mkdir()
    (tmp_path / "file").touch()
    found, fix = f"in {tmp_path}: nearest names: vae", "check the path and its subfolder"
    with refuses(CheckpointError, "no such file or folder", where=tmp_path / "vea", found=found, fix=fix):
        resolve(tmp_path, subfolder="vea")
    with refuses(CheckpointError, "no such file or folder", where="file/vae", found="a file, which holds nothing"):
        resolve(tmp_path / "file", subfolder="vae")


@pytest.mark.parametrize("part", ["..", "/etc", "a/../../b"])
def test_parts_that_lead_out(tmp_path: Path, refuses: Any, part: str) -> None:
    what = "a subfolder or file name must lie inside its folder"
    with refuses(InputError, what, where=None, found=repr(part)):
        resolve(tmp_path, subfolder=part)
    with refuses(InputError, what, where=None, found=repr(part)):
        resolve("org/name", filename=part)


def test_revision_of_a_local_path(tmp_path: Path, refuses: Any) -> None:
    what = "a revision chooses among those of a Hub repository, and this is a local path"
    with refuses(InputError, what, where=tmp_path, found="revision='main'", fix="leave the revision out"):
        resolve(tmp_path, revision="main")


def test_the_environment_alone_makes_it_offline(cached: Callable[..., Path], cache: Path) -> None:
    snapshot = cached(VAE)
    script = """
from vaeport.checkpoint import open_checkpoint, resolve
from vaeport.errors import BlockedError
path = resolve("org/name", subfolder="vae")
print(path, open_checkpoint(path).tensor("w").tolist())
try:
    resolve("org/other")
except BlockedError as error:
    print(error.what)
"""
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(cache), "HF_ENDPOINT": "http://127.0.0.1:9"}
    result = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False, timeout=60
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == [
        f"{snapshot / 'vae'} [1.0, 1.0, 1.0, 1.0]",
        "the repository is not in the Hub's local cache, and HF_HUB_OFFLINE is set",
    ]


@pytest.fixture
def offline(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


@pytest.mark.usefixtures("offline")
def test_offline_by_branch_and_by_commit(cached: Callable[..., Path]) -> None:
    snapshot = cached([*VAE, "ae.safetensors"])
    for revision in (None, "main", COMMIT):
        assert resolve("org/name", subfolder="vae", revision=revision) == snapshot / "vae"
    assert value(resolve("org/name", filename="ae.safetensors")) == 5
    assert value(resolve(Path("org/name"), subfolder="vae", filename="diffusion_pytorch_model.safetensors")) == 1


@pytest.mark.usefixtures("offline")
def test_offline_and_not_cached(cache: Path, tmp_path: Path, refuses: Any) -> None:
    (tmp_path / "org").mkdir()
    (tmp_path / "org" / "names").mkdir()
    what = "the repository is not in the Hub's local cache, and HF_HUB_OFFLINE is set"
    found, fix = "no local path org/name either: in org: nearest names: names", "unset HF_HUB_OFFLINE to download it"
    with refuses(BlockedError, what, where="org/name, revision v1", found=found, fix=fix):
        resolve("org/name", revision="v1")


@pytest.mark.usefixtures("offline")
def test_offline_and_only_partly_cached(cached: Callable[..., Path], refuses: Any) -> None:
    cached([*VAE, "unet/config.json"])
    what, fix = "the Hub's local cache lacks these files, and HF_HUB_OFFLINE is set", "unset HF_HUB_OFFLINE to download"
    with refuses(BlockedError, what, where="org/name, revision main", expected="vea", found="names: vae", fix=fix):
        resolve("org/name", subfolder="vea")
    with refuses(BlockedError, what, where="org/name", expected="model.fp16.safetensors", found="no variant", fix=fix):
        resolve("org/name", subfolder="vae", variant="fp16")
    with refuses(BlockedError, what, where="org/name", expected="unet/diffusion_", found="config.json"):
        resolve("org/name", subfolder="unet")


@pytest.mark.parametrize(
    ("arguments", "asked", "expected"),
    [
        ({"subfolder": "vae"}, {"vae/config.json", "vae/diffusion_pytorch_model.safetensors"}, 1),
        (
            {"subfolder": "vae", "variant": "fp16"},
            {"vae/config.json", "vae/diffusion_pytorch_model.fp16.safetensors"},
            2,
        ),
        (
            {"subfolder": "sharded", "variant": "bf16", "revision": COMMIT},
            {name for name in FILES if name.startswith("sharded/") and "-of-00002" not in name},
            3,
        ),
        ({"filename": "ae.safetensors", "revision": "main"}, {"ae.safetensors"}, 5),
    ],
)
def test_only_the_files_of_the_component_and_variant_are_fetched(
    hub: type[Hub], cache: Path, arguments: dict[str, str], asked: set[str], expected: float
) -> None:
    path = resolve("org/name", **arguments)
    assert hub.asked == asked
    assert path.is_relative_to(cache / "models--org--name" / "snapshots" / COMMIT)
    assert value(path, arguments.get("variant")) == expected
    hub.asked.clear()
    assert resolve("org/name", **arguments) == path
    assert hub.asked == set()


def test_weights_that_the_repository_does_not_have(hub: type[Hub], refuses: Any) -> None:
    what, fix = "the repository has no such safetensors weights", "by subfolder and variant, or by filename"
    found = "vae/diffusion_pytorch_model.bin, vae/diffusion_pytorch_model.fp16.safetensors"
    expected = "vae/diffusion_pytorch_model.ema.safetensors or its shard index"
    with refuses(CheckpointError, what, where="org/name, revision main", expected=expected, found=found, fix=fix):
        resolve("org/name", subfolder="vae", variant="ema")
    with refuses(CheckpointError, what, where="org/name", found="pickled/diffusion_pytorch_model.bin", fix=fix):
        resolve("org/name", subfolder="pickled")
    with refuses(CheckpointError, what, where="org/name, revision main", expected="vea", found=found, fix=fix):
        resolve("org/name", subfolder="vea")
    with refuses(CheckpointError, what, where="org/name", expected="ae.safetensor", found="ae.safetensors", fix=fix):
        resolve("org/name", filename="ae.safetensor")


def test_unknown_revision(hub: type[Hub], refuses: Any) -> None:
    what, fix = "the repository has no such revision", "give a branch, tag or commit that the Hub lists"
    with refuses(CheckpointError, what, where="org/name, revision v9", fix=fix):
        resolve("org/name", subfolder="vae", revision="v9")


def test_gated(hub: type[Hub], refuses: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    what = "the Hub asks for permission to read this repository"
    fix = "accept the conditions at https://huggingface.co/private-org/name, then put its token into"
    found = "the environment variable HF_TOKEN is not set"
    with refuses(BlockedError, what, where="private-org/name, revision main", found=found, fix=fix):
        resolve("private-org/name", subfolder="vae")
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with refuses(BlockedError, what, where="private-org/name", found="HF_TOKEN is set", fix="HF_TOKEN") as _:
        resolve("private-org/name", subfolder="vae")
    monkeypatch.setenv("HF_TOKEN", "hf_right")
    assert value(resolve("private-org/name", subfolder="vae")) == 1


def test_private_or_not_there(hub: type[Hub], refuses: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.refusal = (401, "RepoNotFound")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    what = "the Hub knows no such repository, or it is private"
    found, fix = "no local path private-org/name either", "put a token that may read it into the environment variable"
    with refuses(BlockedError, what, where="private-org/name, revision main", found=found, fix=fix):
        resolve("private-org/name")
    with pytest.raises(BlockedError) as caught:
        resolve("private-org/name")
    assert "hf_secret" not in str(caught.value)


def test_no_network(cache: Path, refuses: Any) -> None:
    what, fix = "the Hub could not be read", "check the network (and HF_ENDPOINT), or give a local path"
    with refuses(BlockedError, what, where="org/name, revision main", found="ConnectError: [Errno", fix=fix):
        resolve("org/name", subfolder="vae")


def test_no_network_but_cached(cached: Callable[..., Path], refuses: Any) -> None:
    snapshot = cached(VAE)
    assert resolve("org/name", subfolder="vae") == snapshot / "vae"
    with refuses(BlockedError, "the Hub could not be read", where="org/name", found="ConnectError", fix="the network"):
        resolve("org/name", subfolder="vae", variant="fp16")


def test_server_that_fails(hub: type[Hub], refuses: Any) -> None:
    hub.refusal = (500, "")
    with refuses(BlockedError, "the Hub could not be read", where="private-org/name", found="500", fix="the network"):
        resolve("private-org/name")


def test_name_that_the_hub_forbids(cache: Path, refuses: Any) -> None:
    what = "not a path that exists, nor a Hub id"
    with refuses(CheckpointError, what, where="a--b/c", found="Cannot have --", fix="no local path a--b/c either"):
        resolve("a--b/c")
