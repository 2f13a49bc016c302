"""An OCI archive, read: its configuration, its layers laid on each other, and a root that a container's processes see."""

import gzip
import io
import json
import os
import tarfile
from pathlib import Path


class Archive:
    def __init__(self, path):
        with tarfile.open(path) as tar:
            self.blobs = {m.name: tar.extractfile(m).read() for m in tar if m.isfile()}
        (entry,) = json.loads(self.blobs["index.json"])["manifests"]
        self.annotations = entry.get("annotations", {})
        self.digest = entry["digest"]
        self.manifest = json.loads(self.blob(entry))
        self.config = json.loads(self.blob(self.manifest["config"]))
        self.size = len(self.blob(entry)) + sum(d["size"] for d in [self.manifest["config"], *self.manifest["layers"]])
        self.members = {}  # path -> TarInfo
        self.data = {}  # path -> bytes, of regular files
        for layer in self.manifest["layers"]:
            with tarfile.open(fileobj=io.BytesIO(gzip.decompress(self.blob(layer)))) as tar:
                for m in tar:
                    self.members[m.name.strip("/")] = m
                    if m.isfile():
                        self.data[m.name.strip("/")] = tar.extractfile(m).read()

    def blob(self, descriptor):
        return self.blobs["blobs/" + descriptor["digest"].replace(":", "/")]

    def listing(self):
        """path -> (type, permissions, owner, group, target), of everything in it."""
        return {p: (m.type, m.mode & 0o7777, m.uid, m.gid, m.linkname) for p, m in self.members.items() if p}

    def unpack(self, folder):
        """With owners and modes (by root only)."""
        for path, m in sorted(self.members.items()):
            at = Path(folder) / path
            if m.isdir():
                at.mkdir(exist_ok=True)
            elif m.issym():
                at.symlink_to(m.linkname)
                continue
            else:
                assert m.isfile(), path
                at.write_bytes(self.data[path])
            os.chown(at, m.uid, m.gid)
            at.chmod(m.mode)
        return Path(folder)


class Container:
    """The unpacked image as a runtime shows it: root read-only, user 65532; /proc, hosts and resolv.conf
    are the runtime's, /run/tidegate is a folder of the test's. mounts: {path in the image: file of the test}."""

    def __init__(self, root, run_dir, mounts=None):
        self.root, self.run_dir = root, run_dir
        for path in ("proc", "dev"):
            (root / path).mkdir(exist_ok=True)
        self.mounts = {"/etc/hosts": "/etc/hosts", "/etc/resolv.conf": "/etc/resolv.conf", **(mounts or {})}
        for path in self.mounts:
            at = root / path.lstrip("/")
            if not at.exists():
                at.touch()
        os.chown(run_dir, 65532, 65532)

    def command(self, *words):
        """What runs these words in it, by exec: the process stays the same."""
        script = ['root=$1 run=$2; shift 2; mount --bind "$root" "$root"; mount -o remount,bind,ro "$root"']
        script += ['mount -t proc proc "$root/proc"; mount --rbind /dev "$root/dev"']
        script += ['mount --bind "$run" "$root/run/tidegate"']
        script += [f'mount --bind "{source}" "$root{path}"' for path, source in self.mounts.items()]
        script += ['exec env -i PATH=/usr/bin ${POD_NAME:+POD_NAME="$POD_NAME" POD_NAMESPACE="$POD_NAMESPACE"} '
                   'setpriv --no-new-privs /usr/sbin/chroot --userspec=65532:65532 --groups= "$root" "$@"']  # fmt: skip
        return ["unshare", "--mount", "--propagation", "private", "sh", "-ec", "\n".join(script), "-", str(self.root),
                str(self.run_dir), *map(str, words)]  # fmt: skip
