"""Container images without an engine: some files in one layer, as an OCI archive. For the tests' own small images."""

import hashlib
import io
import json
import platform
import tarfile

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def write_image(archive, name, files, entrypoint, user="0:0", env=()):
    """name: with its registry and tag. files: {path in the image: (bytes, mode), or the target of a symbolic link}."""
    layer = _tar(files)
    config = json.dumps({
        "architecture": ARCHITECTURES[platform.machine()], "os": "linux", "rootfs": {"type": "layers", "diff_ids": [_digest(layer)]},
        "config": {"Entrypoint": list(entrypoint), "User": user, "Env": ["PATH=/bin", *env], "WorkingDir": "/"},
    }).encode()  # fmt: skip
    manifest = json.dumps({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": _descriptor("application/vnd.oci.image.config.v1+json", config),
        "layers": [_descriptor("application/vnd.oci.image.layer.v1.tar", layer)],
    }).encode()  # fmt: skip
    entry = _descriptor("application/vnd.oci.image.manifest.v1+json", manifest)
    entry["annotations"] = {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name}
    blobs = {f"blobs/sha256/{_digest(b)[7:]}": (b, 0o644) for b in (layer, config, manifest)}
    with open(archive, "wb") as f:
        f.write(_tar({
            "oci-layout": (b'{"imageLayoutVersion":"1.0.0"}', 0o644),
            "index.json": (json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode(), 0o644),
            **blobs,
        }))  # fmt: skip
    return archive


def _digest(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def _descriptor(kind, data):
    return {"mediaType": kind, "digest": _digest(data), "size": len(data)}


def _tar(files):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for path, what in files.items():
            entry = tarfile.TarInfo(path.lstrip("/"))
            if isinstance(what, str):
                entry.type, entry.linkname, entry.mode = tarfile.SYMTYPE, what, 0o777
                tar.addfile(entry)
            else:
                data, entry.mode = what
                entry.size = len(data)
                tar.addfile(entry, io.BytesIO(data))
    return out.getvalue()
