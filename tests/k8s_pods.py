"""Pods as plain processes: environment, volumes and read-only root of a manifest, on this machine's programs."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from training import REPOSITORY

Manifest = dict[str, Any]

# Arguments: the new root, user and group, how many volumes, for each its folder, where it is mounted and ro or rw, then
# the command. Of root's rights one is left, to read what others may not: Python may lie in root's home here.
_CONTAINER = r"""
set -e
root=$1 user=$2 group=$3 count=$4; shift 4
mount -t tmpfs none "$root"
for top in /*; do
  if [[ -L $top ]]; then cp -P "$top" "$root$top"
  elif [[ -d $top && $top != /tmp ]]; then
    mkdir "$root$top"; mount --rbind "$top" "$root$top"
    case $top in /dev|/proc|/sys) ;; *) mount -o remount,bind,ro "$root$top" ;; esac
  fi
done
for ((volume = 0; volume < count; volume++)); do
  if [[ -d $1 ]]; then mkdir -p "$root$2"; else [[ -e $root$2 ]] || touch "$root$2"; fi
  mount --bind "$1" "$root$2"
  if [[ $3 == ro ]]; then mount -o remount,bind,ro "$root$2"; fi
  shift 3
done
mount -o remount,ro "$root"
reads=--inh-caps=-all,+dac_read_search
exec chroot "$root" setpriv --reuid "$user" --regid "$group" --clear-groups --no-new-privs \
  "$reads" "${reads/inh/ambient}" --bounding-set=-all,+dac_read_search env -C / -i "$@"
"""


def containers_work() -> bool:
    """Whether this machine lets us make mount namespaces."""
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        return False
    return subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode == 0


@dataclass
class Cluster:
    """What pods share: names, Secrets, ConfigMaps, claims. All ports are this machine's, so that each is given another.

    Attributes:
        folder: of all volumes.
        secrets: data of each.
        config_maps: data of each.
        ports: what stands in manifests, and the free port in its place.
        names: of hosts, all of them this one.
    """

    folder: Path
    secrets: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    config_maps: dict[str, Mapping[str, str]] = field(default_factory=dict)
    ports: Mapping[str, str] = field(default_factory=dict)
    names: Sequence[str] = ()

    def start(
        self,
        pod: str,
        template: Manifest,
        container: Manifest,
        *,
        annotations: Mapping[str, str] | None = None,
        command: Sequence[str] = (),
        told: Mapping[str, str] | None = None,
    ) -> "subprocess.Popen[str]":
        """Start a container of a pod as kubelet does; the image's entry point is `marlin`.

        Args:
            pod: its name.
            template: of the pod.
            container: one of its.
            annotations: that a controller gave the pod.
            command: in place of the container's own.
            told: further variables, which an operator adds.
        """
        entry = container.get("command") or [sys.executable, "-m", "pipeline.cli"]
        words = list(command) or [self._local(word) for word in [*entry, *container.get("args", [])]]
        environment = {**self._image(), **self._environment(container, annotations or {}), **(told or {})}
        mounts = [
            (self._volume(pod, template, mount), mount["mountPath"], "ro" if mount.get("readOnly") else "rw")
            for mount in container["volumeMounts"]
        ]
        mounts.append((self._hosts(), "/etc/hosts", "ro"))
        root = self.folder / pod / f"root-{container['name']}"
        root.mkdir(parents=True, exist_ok=True)
        variables = [f"{name}={value}" for name, value in environment.items()]
        flat = [str(word) for mount in mounts for word in mount]
        context = template["spec"]["securityContext"]
        user = [str(context["runAsUser"]), str(context["runAsGroup"])]
        namespace = ["unshare", "--mount", "bash", "-c", _CONTAINER, "bash", str(root), *user, str(len(mounts))]
        return subprocess.Popen(
            [*namespace, *flat, *variables, *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def _image(self) -> dict[str, str]:
        """What the image sets (docker/Dockerfile), with this machine's programs."""
        paths = [str(REPOSITORY), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
        return {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": os.pathsep.join(path for path in paths if path),
            "PYTHONUNBUFFERED": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    def _environment(self, container: Manifest, annotations: Mapping[str, str]) -> dict[str, str]:
        told: dict[str, str] = {}
        for source in container.get("envFrom", []):
            told |= self.secrets[source["secretRef"]["name"]]
        for variable in container["env"]:
            if "value" in variable:
                told[variable["name"]] = self._local(variable["value"])
            elif "resourceFieldRef" in variable["valueFrom"]:
                kind, _, name = variable["valueFrom"]["resourceFieldRef"]["resource"].partition(".")
                told[variable["name"]] = container["resources"][kind][name]
            else:
                path = variable["valueFrom"]["fieldRef"]["fieldPath"]
                told[variable["name"]] = annotations[path.removeprefix("metadata.annotations['").removesuffix("']")]
        return told

    def _volume(self, pod: str, template: Manifest, mount: Manifest) -> Path:
        (volume,) = [each for each in template["spec"]["volumes"] if each["name"] == mount["name"]]
        if "persistentVolumeClaim" in volume:
            folder = self.folder / "claims" / volume["persistentVolumeClaim"]["claimName"]
        else:
            folder = self.folder / pod / mount["name"]
        folder.mkdir(parents=True, exist_ok=True)
        os.chown(folder, -1, template["spec"]["securityContext"]["fsGroup"])
        folder.chmod(0o2775)
        if "configMap" in volume:
            for name, text in self.config_maps[volume["configMap"]["name"]].items():
                (folder / name).write_text(self._local(text))
        return folder

    def _hosts(self) -> Path:
        path = self.folder / "hosts"
        path.write_text(Path("/etc/hosts").read_text() + f"\n127.0.0.1 {' '.join(self.names)}\n")
        return path

    def _local(self, text: str) -> str:
        for there, here in self.ports.items():
            text = text.replace(there, here)
        return text
